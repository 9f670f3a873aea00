"""Selection of a model's inputs and sample weights from a batch."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence

import keras

from keras_distill.taps import Tap

Selection = str | int | tuple | list | dict | Callable | keras.Layer | None


def select(x, selection: Selection, training: bool = False, known: Iterable = ()):
    """Select a model's inputs from the inputs of a batch.

    Args:
        x: inputs of a batch.
        selection: None for all of `x`; a key or an index; a list or a dict of these for a
            model with several inputs; or a layer or function that computes the model's
            input from `x`.
        training: the form in which layers run.
        known: pairs of a layer or function and what it returned for this batch, which is
            used again.

    Raises:
        ValueError: `x` has no such part.
    """
    if selection is None:
        return x
    if callable(selection):
        for run, value in known:
            if is_in(selection, [run]):
                return value
        if isinstance(selection, keras.Layer):
            return selection(x, training=training)
        return selection(x)
    if isinstance(selection, Mapping):
        parts = selection.items()
        return {name: select(x, part, training, known) for name, part in parts}
    if isinstance(selection, (list, tuple)):
        return [select(x, part, training, known) for part in selection]
    return _part(x, selection)


def _part(x, key: str | int):
    try:
        if isinstance(key, int) and not isinstance(x, (list, tuple, Mapping)):
            raise TypeError("an index is of inputs in a list or tuple")
        return x[key]
    except (KeyError, IndexError, TypeError) as error:
        parts = list(x) if isinstance(x, Mapping) else type(x).__name__
        raise ValueError(
            f"The batch's inputs have no part {key!r}; they are {parts}. Name one of them "
            "in student_inputs, teacher_inputs, inputs or sample_ids, or leave the "
            "argument out for all of them."
        ) from error


def check_parts(x, *selections: Selection) -> None:
    """Check that a batch has every part that is selected, without running layers."""
    for selection in keys_of(*selections):
        select(x, selection)


def keys_of(*selections: Selection) -> list[str | int]:
    """Return the keys and indices in selections."""
    leaves = keras.tree.flatten(selections)
    return [leaf for leaf in leaves if isinstance(leaf, (str, int))]


def layers_in(*selections: Selection) -> list[keras.Layer]:
    """Return the layers in selections, each once."""
    leaves = keras.tree.flatten(selections)
    found = {id(leaf): leaf for leaf in leaves if isinstance(leaf, keras.Layer)}
    return list(found.values())


def callables_in(*selections: Selection) -> list[Callable]:
    """Return the layers and functions in selections, each once."""
    found = []
    for leaf in keras.tree.flatten(selections):
        if callable(leaf) and not is_in(leaf, found):
            found.append(leaf)
    return found


def is_in(run: Callable, runs: Iterable[Callable]) -> bool:
    """Whether a layer or function is among others; each access makes a method anew."""
    bound = inspect.ismethod(run)
    return any(run is other or (bound and run == other) for other in runs)


def for_model(selection: Selection, model) -> Selection:
    """Return a selection in the structure that a model takes.

    A list of keys for a functional model of named inputs becomes a dict: Keras would take
    a list in the order of the sorted names.

    Raises:
        ValueError: the model's inputs have other names.
    """
    wanted = getattr(model, "input", None) if getattr(model, "inputs", None) else None
    is_list = isinstance(selection, (list, tuple))
    if not isinstance(wanted, Mapping) or not is_list:
        return selection
    if not all(isinstance(key, str) for key in selection):
        return selection
    if set(selection) != set(wanted):
        raise ValueError(
            f"'{model.name}' takes a dict of {list(wanted)}, but its part of the batch is "
            f"{list(selection)}. Pass a dict from the model's names to the batch's, as "
            f"{dict(zip(wanted, selection, strict=False))}."
        )
    return {key: key for key in selection}


def names_of_outputs(model) -> list[str]:
    """Return the names of a model's outputs, in the order of a list of labels for them.

    Of a dict of outputs these are its keys, in sorted order as Keras flattens dicts: the
    layers' names may be others. A model of its own class has none.
    """
    names = list(getattr(model, "output_names", None) or [])
    outputs = getattr(model, "output", None) if names else None
    return sorted(outputs) if isinstance(outputs, Mapping) else names


def outputs_by_name(outputs) -> list:
    """Return a model's outputs with their names, `""` for the only one."""
    if isinstance(outputs, Mapping):
        return [(name, x) for name, x in outputs.items() if hasattr(x, "shape")]
    if isinstance(outputs, (list, tuple)):
        return [(str(i), x) for i, x in enumerate(outputs) if hasattr(x, "shape")]
    return [("", outputs)] if hasattr(outputs, "shape") else []


def part_of_output(structure, tap: Tap, names: Sequence[str]):
    """Return the part of one output: of labels, sample weights or compiled losses.

    Args:
        structure: one value for the only output or for all, or a dict or list of them.
        tap: of the output, by its name or its index; a layer has the part of the only
            output.
        names: of the model's outputs, in their order.

    Returns:
        The part, or None if there is none.
    """
    name = tap.output_name
    if not name and len(names) == 1:
        name = names[0]
    index = int(name) if name.isdecimal() else _index(names, name)
    if isinstance(structure, dict):
        if not tap.output_name and len(structure) == 1:
            return next(iter(structure.values()))
        by_index = names[index] if index is not None and index < len(names) else None
        return structure.get(name, structure.get(by_index))
    if isinstance(structure, (list, tuple)):
        if len(structure) == 1:
            return structure[0]
        inside = index is not None and index < len(structure)
        return structure[index] if inside else None
    return structure


def _index(names: Sequence[str], name: str) -> int | None:
    return list(names).index(name) if name in names else None
