"""Samples that a classifier gets wrong."""

import keras
import numpy as np

from keras_distill.analysis.predictions import classes_of, outputs_of


def wrong(model: keras.Model, samples, batch_size: int = 1000) -> np.ndarray:
    """Return a boolean mask of the samples whose predicted class is not the label.

    Its sum is the number of errors, its mean the error rate.

    Args:
        model: returns logits or probabilities `(B, K)` for a batch of images; one output
            is that of a binary classifier.
        samples: `kd.data.Samples`, or any object with `images` and `labels`, `(N,)`.
        batch_size: Default 1000.

    Returns:
        Booleans, `(N,)`.

    Raises:
        TypeError: the model has no `predict`.
        ValueError: the outputs are not of shape `(N, K)`, or labels are no classes.

    Example:
        >>> errors = kd.analysis.wrong(student, digits.test).sum()
    """
    outputs = outputs_of(model, samples, batch_size)
    return outputs.argmax(axis=-1) != classes_of(samples)
