"""What tapped gradients are gradients of."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill import taps
from keras_distill.targets.target import one_hot_labels


def of_labels(labels):
    """Give the cross-entropy of the labels, summed over the batch, of logits."""

    def score(logits):
        wide = keras.backend.result_type(logits.dtype, "float32")
        log_p = ops.log_softmax(ops.cast(logits, wide), axis=-1)
        return -ops.sum(one_hot_labels(labels, log_p) * log_p)

    return score


def of_first_class(known=None):
    """Give the logit of the first class, summed over the batch, of logits.

    Args:
        known: logits that say which class is first. Default: the net's own.
    """

    def score(logits):
        first = ops.argmax(logits if known is None else known, axis=-1)
        return ops.sum(one_hot_labels(first, logits) * logits)

    return score


def scores(labels, known=None) -> dict:
    """Give what each gradient tap differentiates.

    Args:
        labels: of the batch, or None.
        known: the teacher's logits, for the student.
    """
    return {
        taps.LABEL_GRADIENT: of_labels(labels),
        taps.MIRRORED_GRADIENT: of_labels(labels),
        taps.CLASS_GRADIENT: of_first_class(known),
    }
