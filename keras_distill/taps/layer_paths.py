"""The layers of a model by their paths."""

import difflib
import re
from collections.abc import Iterator

import keras

from keras_distill._backend.keras_layers import flatten_layers, sublayers
from keras_distill.taps.tap import GRADIENTS, LOGITS, Tap

# Ends the name of a layer that a batch normalization was folded into: its output differs
# from that of the original layer.
FOLDED = "_folded"


def layer_paths(model: keras.Layer, prefix: str = "") -> Iterator[str]:
    """Iterate over the paths of all layers below a model.

    They are the same in every process: a layer is named by the attribute that holds it,
    as in `"backbone/transformer_layers/1"`, else by its name. The names that Keras makes
    up, such as `"dense_17"`, count the layers of a process; a layer of such a name that no
    attribute holds is named by its index among the model's `layers`, as in `"layers/3"`.

    Example:
        >>> print(*kd.taps.layer_paths(teacher), sep="\\n")
    """
    for part, layer in children_of(model):
        yield prefix + part
        yield from layer_paths(layer, f"{prefix}{part}/")


def find_layer(model: keras.Layer, path: str) -> keras.Layer:
    """Return the layer at a path.

    Raises:
        ValueError: there is no such layer; the message lists the nearest paths.

    Example:
        >>> kd.taps.find_layer(teacher, "stack2").name
        'stack2'
    """
    layer, parent, part = _descend(model, path)
    if layer is None:
        folded = isinstance(parent, keras.Layer) and _child(parent, part + FOLDED)
        raise ValueError(_folded(path) if folded else _missing(model, path))
    return layer


def layers_of(model, taps) -> dict[Tap, keras.Layer]:
    """Return the layer of each tap of a layer."""
    layers = {tap: find_layer(model, tap.path) for tap in taps if not tap.is_output}
    for tap, layer in layers.items():
        # By an attribute or an index, one with another name is found too.
        is_other = layer.name.endswith(FOLDED) and not tap.path.endswith(FOLDED)
        if is_other or (getattr(layer, "is_folded", False) and tap.side == "input"):
            raise ValueError(_folded(tap.path))
    return layers


def leaves_of(model) -> list[keras.Layer]:
    """Return the layers without sublayers."""
    layers = flatten_layers(model, include_self=False)
    return [layer for layer in layers if not sublayers(layer)]


def check_short_forms(model, taps, last_layer) -> None:
    """Check that no short form such as `"logits"` could mean the output or a layer.

    Args:
        model: any model.
        taps: of it.
        last_layer: the layer that returns the model's output, or None.
    """
    for path in {tap.path for tap in taps if tap.is_short_form}:
        layer, _, _ = _descend(model, path)
        if layer is None or any(x is last_layer for x in _with_sublayers(layer)):
            continue
        name = ", ".join(f"'{part}'" for part in path.split("/")[1:])
        raise ValueError(
            f"The tap '{path}' is ambiguous in '{model.name}': its output, or its layer "
            f"'{path}', which is not the output? Use kd.Tap.output({name}) or "
            f"kd.Tap.layer('{path}')."
        )


def children_of(parent: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """Iterate over the direct sublayers, each with its part of a path."""
    public, private = {}, {}
    attributes = dict(vars(parent))
    if hasattr(parent, "named_children"):
        # On torch a layer is a module, which keeps its layers elsewhere.
        attributes |= dict(parent.named_children())
    for name, value in attributes.items():
        shown = name.lstrip("_")
        is_property = isinstance(getattr(type(parent), shown, None), property)
        if is_property and isinstance(value, keras.Layer):
            name = shown
        for part, layer in _held(value, name):
            if name == shown:
                public.setdefault(id(layer), part)
            else:
                # Keras's own list of all layers comes first: others are better.
                private[id(layer)] = part
    indexed = getattr(parent, "layers", ())
    indices = {id(layer): f"layers/{index}" for index, layer in enumerate(indexed)}
    for layer in sublayers(parent):
        name = None if _is_counted(layer) else layer.name
        attribute, index, hidden = (
            parts.get(id(layer)) for parts in (public, indices, private)
        )
        parts = [x for x in (attribute, name, index, hidden) if x is not None]
        # A name comes before an attribute, and may be that of another layer.
        right = (part for part in parts if _descend(parent, part)[0] is layer)
        yield next(right, layer.name), layer


def _is_counted(layer: keras.Layer) -> bool:
    """Whether a layer has the name of its class, as Keras makes it up."""
    snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
    return re.fullmatch(rf"{re.escape(snake)}(_\d+)?", layer.name) is not None


def _held(value, part: str) -> Iterator[tuple[str, keras.Layer]]:
    """Iterate over the layers in an attribute, each with the path to it."""
    if isinstance(value, keras.Layer):
        yield part, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _held(item, f"{part}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _held(item, f"{part}/{key}")


def _with_sublayers(layer) -> list:
    return flatten_layers(layer) if isinstance(layer, keras.Layer) else [layer]


def _missing(model, path: str) -> str:
    if path in GRADIENTS:
        return (
            f"The model '{model.name}' has no layer '{path}'. The gradient with respect "
            "to the input is kd.Tap.input_gradient(), with of='first_class' or "
            "mirrored=True for the others."
        )
    known = list(layer_paths(model))
    near = difflib.get_close_matches(path, known, n=5, cutoff=0.4)
    output = ""
    if path.split("/")[0] == LOGITS:
        output = " The model's output is kd.Tap.output()."
    return (
        f"The model '{model.name}' has no layer '{path}'. Near it: "
        f"{', '.join(near or known[-5:]) or 'none'}. Pass the path of one of its "
        f"layers, from the model down, joined by '/'.{output}"
    )


def _folded(path: str) -> str:
    return (
        f"The tap of '{path}' is of a tensor between a layer and the batch normalization "
        "after it, which kd.freeze folded into one. Tap the output of the normalization, "
        f"or keep both as they are: kd.freeze(..., keep='{path}')."
    )


def _descend(model, path: str) -> tuple:
    """Return what is at a path, or None; and the last step, a parent and a part."""
    layer, parts = model, path.split("/")
    while parts:
        parent, count, part = layer, 1, parts[0]
        # A frozen copy has the paths of its original, from attributes and indices.
        names = getattr(parent, "original_names", {})
        for several in range(1, len(parts) + 1):
            if "/".join(parts[:several]) in names:
                count, part = several, names["/".join(parts[:several])]
        layer, parts = _child(parent, part), parts[count:]
        if layer is None:
            break
    return layer, parent, part


def _child(parent, part: str):
    if isinstance(parent, (list, tuple)):
        in_range = part.isdecimal() and int(part) < len(parent)
        return parent[int(part)] if in_range else None
    if isinstance(parent, dict):
        return parent.get(part)
    for layer in sublayers(parent):
        if layer.name == part:
            return layer
    child = getattr(parent, part, None) if part.isidentifier() else None
    return child if isinstance(child, (keras.Layer, list, tuple, dict)) else None
