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


def in_batches(images, batch_size: int):
    """Give images as tensors, batch by batch."""
    for start in range(0, len(images), batch_size):
        yield keras.ops.convert_to_tensor(images[start : start + batch_size])


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Give softened probabilities of logits `(..., K)`."""
    from scipy import special

    return special.softmax(logits / temperature, axis=-1)


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Give their logarithms."""
    from scipy import special

    return special.log_softmax(logits / temperature, axis=-1)
