"""Labels that the compiled loss ignores, and which terms leave out as well."""

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.taps import Tap


def ignored_class(loss, output: str = "") -> int | None:
    """Return the class that a compiled loss ignores, as its `ignore_class`, or None.

    Args:
        loss: that a distiller was compiled with: of one output, or of several.
        output: name or index of one of several outputs. Default: the only one.
    """
    loss = _part(loss, output)
    if not isinstance(loss, keras.losses.Loss):
        return None
    return loss.get_config().get("ignore_class")


def valid_labels(loss, labels, tap: Tap):
    """Return where labels are not ignored, in their shape without a last axis of 1.

    Args:
        loss: as in `ignored_class`.
        labels: of the batch, or None.
        tap: of the student, whose output the labels are of; a layer has those of the
            only output.

    Returns:
        Booleans, or None if all labels count.
    """
    ignored, labels = (
        ignored_class(loss, tap.output_name),
        _part(labels, tap.output_name),
    )
    if ignored is None or labels is None:
        return None
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) > 1 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    return ops.not_equal(labels, ops.cast(ignored, labels.dtype))


def with_known_labels(loss, labels):
    """Return labels with class 0 for ignored ones, which terms leave out."""
    ignored = ignored_class(loss)
    if ignored is None or labels is None or isinstance(labels, (dict, list, tuple)):
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


def _part(structure, output: str):
    """Return the part of one output; of a layer, that of the only output."""
    if isinstance(structure, dict):
        parts = list(structure.values())
        only = parts[0] if len(parts) == 1 else None
        return structure.get(output) if output else only
    if isinstance(structure, (list, tuple)):
        if output.isdecimal() and int(output) < len(structure):
            return structure[int(output)]
        return structure[0] if len(structure) == 1 else None
    return structure
