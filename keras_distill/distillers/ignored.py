"""Labels that the compiled loss ignores, and which terms leave out as well."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.data.selection import part_of_output
from keras_distill.taps import Tap


def ignored_class(loss, tap: Tap, names: Sequence[str]) -> int | None:
    """Return the class that a compiled loss ignores, as its `ignore_class`, or None.

    Args:
        loss: that a distiller was compiled with: of one output, or of several.
        tap: of the output, or of a layer, for which the only output counts.
        names: of the model's outputs, in their order.
    """
    loss = part_of_output(loss, tap, names)
    if not isinstance(loss, keras.losses.Loss):
        return None
    return loss.get_config().get("ignore_class")


def valid_labels(loss, labels, tap: Tap, names: Sequence[str]):
    """Return where labels are not ignored, in their shape without a last axis of 1.

    Args:
        loss: as in `ignored_class`.
        labels: of the batch, or None.
        tap, names: as in `ignored_class`.

    Returns:
        Booleans, or None if all labels count.
    """
    ignored = ignored_class(loss, tap, names)
    labels = part_of_output(labels, tap, names)
    if ignored is None or labels is None:
        return None
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) > 1 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    return ops.not_equal(labels, ops.cast(ignored, labels.dtype))


def with_known_labels(loss, labels, tap: Tap, names: Sequence[str]):
    """Return an output's labels, with class 0 for ignored ones, which terms leave out."""
    ignored = ignored_class(loss, tap, names)
    labels = part_of_output(labels, tap, names)
    if ignored is None or labels is None:
        return labels
    labels = ops.convert_to_tensor(labels)
    known = ops.not_equal(labels, ops.cast(ignored, labels.dtype))
    return ops.where(known, labels, ops.zeros_like(labels))


def weight_of_valid(weight, valid, reduction: str | None):
    """Return sample weights under which a mean is that over the valid samples.

    Args:
        weight: `(B,)`, `(B, L)` or None.
        valid: `(B,)`, booleans, or None for all.
        reduction: of the loss; a sum needs no scaling.
    """
    if valid is None:
        return weight
    valid = ops.cast(valid, "float32")
    if reduction in ("sum_over_batch_size", "mean"):
        counts = ops.stack([ops.sum(ops.ones_like(valid)), ops.sum(valid)])
        size, count = ops.unstack(strategies.mean_count(counts))
        valid = ops.divide_no_nan(valid * size, count)
    if weight is None:
        return valid
    weight = ops.cast(ops.convert_to_tensor(weight), "float32")
    while len(valid.shape) < len(weight.shape):
        valid = ops.expand_dims(valid, axis=-1)
    return weight * valid
