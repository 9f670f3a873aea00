"""Mixed labels in a step, where a loss is of one class per sample."""

import math

import keras
from keras import ops

from keras_distill.adapters import Match


def without_mixed(loss, value, labels, student):
    """Return a loss's value, NaN without a gradient if labels of the batch are mixed.

    `fit` checks arrays, and the first batch of other data, before the first step. Later
    batches are met here: training stops at the next check of the logs, and until then
    the term moves no weight on such a batch.

    Args:
        loss: of a term.
        value: of the loss on a batch.
        labels: of the batch, or None.
        student: the student's tensor that is compared.
    """
    if not loss.needs_one_class or labels is None or len(labels.shape) < 2:
        return value
    labels = ops.convert_to_tensor(labels)
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if not keras.backend.is_float_dtype(dtype):
        return value
    mixed = ops.any(labels != ops.round(labels))
    if _are_rows(loss, labels.shape, student.shape):
        several = ops.count_nonzero(labels, axis=-1) > 1
        mixed = ops.logical_or(mixed, ops.any(several))
    return ops.where(mixed, ops.cast(math.nan, value.dtype), value)


def _are_rows(loss, labels, student) -> bool:
    """Whether labels of a shape are rows of an entry for each class."""
    if loss.match is Match.CLASSES:
        return len(labels) == len(student) and labels[-1] == student[-1]
    return len(labels) == 2 and labels[-1] > 1


def cause_of_nan(bounds, name: str) -> str:
    """Return that a part of the loss may be NaN for its mixed labels, if it may."""
    bound = bounds.get(name)
    if bound is None or not bound.term.loss.needs_one_class:
        return ""
    return (
        f"{name} is of one class per sample, and NaN on a batch whose labels are mixed: "
        "rows of several nonzero entries, as MixUp, CutMix and smoothing make. Use a term "
        "without labels, such as kd.losses.SoftTarget(), or one that takes rows, such as "
        "kd.losses.ConfidenceWeightedLabel(). "
    )
