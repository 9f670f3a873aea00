"""Selection of a model's inputs and sample weights from a batch."""

import keras

from keras_distill.taps import Tap

Selection = str | int | tuple | list | keras.Layer | None


def select(x, selection: Selection):
    """Select a model's inputs from the inputs of a batch.

    A selection is None for all of `x`; a key or an index; a list of these for a model
    with several inputs; or a layer or function that computes the model's input from `x`.
    """
    if selection is None:
        return x
    if callable(selection):
        return selection(x)
    if isinstance(selection, (list, tuple)):
        return [select(x, part) for part in selection]
    try:
        return x[selection]
    except (KeyError, IndexError, TypeError) as error:
        parts = list(x) if isinstance(x, dict) else type(x).__name__
        raise ValueError(
            f"The batch's inputs have no part {selection!r}; they are {parts}. Name one "
            "of them in student_inputs, teacher_inputs or sample_ids."
        ) from error


def check_parts(x, *selections: Selection) -> None:
    """Check that a batch has every part that is selected, without running layers."""
    for selection in keras.tree.flatten(selections):
        if not callable(selection):
            select(x, selection)


def weight_for(sample_weight, tap: Tap):
    """Return the sample weights of a term, by its first tap of the student.

    A dict or list, for a student with several outputs, weights only terms on an output.
    """
    if not isinstance(sample_weight, (dict, list, tuple)):
        return sample_weight
    output = tap.path.partition("/")[2] if tap.is_output else ""
    if isinstance(sample_weight, dict):
        return sample_weight.get(output)
    return sample_weight[int(output)] if output.isdecimal() else None
