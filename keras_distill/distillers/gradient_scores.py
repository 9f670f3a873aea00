"""The scalars whose gradients with respect to the input can be tapped."""

import keras
from keras import ops

from keras_distill.losses._entropy import at_label
from keras_distill.taps import Tap
from keras_distill.targets.target import label_rows

FIRST_CLASS_GRADIENT = Tap.input_gradient("first_class")


def label_score(labels):
    """Return the function from logits to the labels' cross-entropy, summed over the batch."""

    def score(logits):
        wide = keras.backend.result_type(logits.dtype, "float32")
        log_p = ops.log_softmax(ops.cast(logits, wide), axis=-1)
        return -ops.sum(at_label(label_rows(labels, log_p), log_p))

    return score


def first_class_score(ranking=None):
    """Return the function from logits to that of the first class, summed over the batch.

    Args:
        ranking: logits that decide which class is first. Default: the model's own.
    """

    def score(logits):
        first = ops.argmax(logits if ranking is None else ranking, axis=-1)
        return ops.sum(at_label(label_rows(first, logits), logits))

    return score


def gradient_scores(labels, teacher_logits=None) -> dict:
    """Return the score of each input gradient, by the path of its tap.

    Args:
        labels: of the batch, or None.
        teacher_logits: for the student's gradients.
    """
    of_labels = label_score(labels)
    return {
        Tap.input_gradient().path: of_labels,
        Tap.input_gradient(mirrored=True).path: of_labels,
        FIRST_CLASS_GRADIENT.path: first_class_score(teacher_logits),
    }
