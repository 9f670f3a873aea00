"""Checks that labels have the shape that a loss of Keras takes for an output."""

from collections.abc import Sequence

import keras

from keras_distill.training.data_checks import known_loss

_OF_NUMBERS = (
    keras.losses.MeanSquaredError,
    keras.losses.MeanAbsoluteError,
    keras.losses.MeanAbsolutePercentageError,
    keras.losses.MeanSquaredLogarithmicError,
    keras.losses.Huber,
    keras.losses.LogCosh,
)
_OF_ROWS = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy,
)
_SPARSE = keras.losses.SparseCategoricalCrossentropy


def check_label_shape(labels, loss, output: Sequence[int | None]) -> None:
    """Check that labels fit an output, for the losses of Keras whose labels are known.

    Args:
        labels: of the output; anything without a shape is left alone.
        loss: of the output, as `compile` takes it.
        output: shape of the output, batch first; None for sizes that are unknown.

    Raises:
        ValueError: the shapes do not fit.
    """
    kind = _kind_of(loss)
    if kind is None or not hasattr(labels, "shape") or len(output) < 2:
        return
    shape = tuple(labels.shape)
    if kind is _SPARSE:
        takes, same = output[:-1], shape[:-1] if shape[-1:] == (1,) else shape
        fits = _agree(shape, takes) or _agree(same, takes)
    else:
        takes = output
        fits = _fits_rows(shape, output, broadcasts=kind in _OF_NUMBERS)
    if fits:
        return
    raise ValueError(
        f"The labels have the shape {shape}, but {kind.__name__} takes "
        f"{_text(takes)} for the student's outputs {_text(output)}. "
        f"{_fix(kind, shape, tuple(output))}"
    )


def check_weight_shape(weight, loss, output: Sequence[int | None]) -> None:
    """Check that weights of samples are not taken for those of tokens or pixels.

    Keras multiplies them with a value for each, which a backend refuses, or spreads over
    the tokens where their number is that of the samples.

    Args:
        weight: of the output; anything without a shape is left alone.
        loss, output: as in `check_label_shape`.

    Raises:
        ValueError: there is one weight per sample for a loss of several values for each.
    """
    entries = tuple(output[1:-1])
    of_samples = hasattr(weight, "shape") and len(weight.shape) == 1
    if _kind_of(loss) is None or not of_samples or entries in ((), (1,)):
        return
    raise ValueError(
        f"sample_weight has the shape {tuple(weight.shape)}, but the loss has a value for "
        f"each of {entries} parts of a sample. Pass one weight for each, or "
        "sample_weight[:, None] with as many axes for one per sample."
    )


def _kind_of(loss):
    """Return the class of a loss of Keras's, None for any other."""
    if isinstance(loss, (dict, list, tuple)) or loss is None:
        return None
    loss = known_loss(loss)
    kinds = (*_OF_NUMBERS, *_OF_ROWS, _SPARSE)
    if isinstance(loss, keras.losses.Loss):
        axis = loss.get_config().get("axis", -1) if type(loss) in kinds else None
        return type(loss) if axis == -1 else None
    names = {kind.__name__.lower(): kind for kind in kinds}
    return names.get(getattr(loss, "__name__", "").replace("_", ""))


def _agree(shape: Sequence, expected: Sequence) -> bool:
    """Whether two shapes agree behind the batch, as far as they are known."""
    pairs = zip(shape[1:], expected[1:], strict=False)
    return len(shape) == len(expected) and all(
        a == b or None in (a, b) for a, b in pairs
    )


def _fits_rows(shape: tuple, output: Sequence, broadcasts: bool) -> bool:
    """Whether labels have a number for each output; a last axis of 1 may be left out."""
    for longer, shorter in ((output, shape), (shape, output)):
        if len(longer) == len(shorter) + 1:
            return longer[-1] in (1, None) and _agree(longer[:-1], shorter)
    if broadcasts and len(shape) == len(output):
        pairs = zip(shape[1:], output[1:], strict=True)
        return all(a == b or {a, b} & {1, None} for a, b in pairs)
    return _agree(shape, output)


def _text(shape: Sequence) -> str:
    sizes = ["B", *("?" if n is None else str(n) for n in shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _fix(kind, shape: tuple, output: tuple) -> str:
    if kind is _SPARSE and _agree(shape, output):
        return (
            "One-hot rows need keras.losses.CategoricalCrossentropy(from_logits=True), or "
            "pass their classes, labels.argmax(-1)."
        )
    if "Categorical" in kind.__name__ and kind is not _SPARSE:
        classes = shape[:-1] if shape[-1:] == (1,) else shape
        if _agree(classes, output[:-1]):
            return (
                "Classes as numbers need "
                "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
            )
    if len(output) == 4 and len(shape) >= 3:
        return (
            "Resize the labels to the output's height and width, by nearest neighbour, or "
            "end the student in an UpSampling2D."
        )
    return "Reshape the labels, or change the student's last layer."
