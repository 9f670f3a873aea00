"""Which samples a classifier gets wrong."""

from __future__ import annotations

import keras
import numpy as np

from keras_distill.analysis.predictions import predicted


def wrong(model: keras.Model, samples, batch_size: int = 1000) -> np.ndarray:
    """Mark the samples whose largest logit is not the label's.

    Its sum is the number of errors, its mean the error; selected by class it tells
    where they lie.

    Args:
        model: gives logits or probabilities, `(B, K)`, for a batch of images.
        samples: `kd.data.Samples`, or anything with `images` and `labels`, `(N,)`.
        batch_size: of the prediction. Default 1000.

    Returns:
        Booleans, `(N,)`.

    Raises:
        TypeError: the model does not predict.
        ValueError: it does not give one vector a sample, or gives one number.

    Example:
        >>> errors = kd.analysis.wrong(student, digits.test).sum()
    """
    found = predicted(model, samples, batch_size)
    return found.argmax(axis=-1) != np.asarray(samples.labels)
