"""What models say of samples, in float64."""

from __future__ import annotations

import keras
import numpy as np


def logits_of(model: keras.Model, samples, batch_size: int) -> np.ndarray:
    """Give a model's logits of samples, `(N, K)`.

    Args:
        model: gives one vector for each sample.
        samples: anything with `images`.
        batch_size: of the prediction.

    Raises:
        ValueError: it gives something else.
    """
    found = model.predict(samples.images, batch_size=batch_size, verbose=0)
    if np.ndim(found) != 2 or len(found) != len(samples.images):
        shapes = keras.tree.map_structure(np.shape, found)
        raise ValueError(
            f"The model '{model.name}' should give one vector for each of the "
            f"{len(samples.images)} samples, (N, K); it gave {shapes}."
        )
    return found.astype("float64")


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Give softened probabilities of logits `(..., K)`."""
    return np.exp(log_softmax(logits, temperature))


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Give their logarithms."""
    z = logits / temperature
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))
