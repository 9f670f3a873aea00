"""Which samples a classifier gets wrong."""

from __future__ import annotations

import keras
import numpy as np


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
        ValueError: the model does not give one vector a sample.

    Example:
        >>> errors = kd.analysis.wrong(student, digits.test).sum()
    """
    predictions = model.predict(samples.images, batch_size=batch_size, verbose=0)
    if getattr(predictions, "shape", ())[:-1] != np.shape(samples.labels):
        raise ValueError(
            f"The model '{model.name}' should give one vector for each of the "
            f"{len(samples.labels)} samples, (N, K); it gave "
            f"{keras.tree.map_structure(np.shape, predictions)}."
        )
    return predictions.argmax(axis=-1) != samples.labels
