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
        TypeError: it does not predict.
        ValueError: it gives something else, one number, or probabilities.
    """
    found = predicted(model, samples, batch_size).astype("float64")
    if (found >= 0).all() and np.allclose(found.sum(-1), 1.0, atol=1e-3):
        raise ValueError(
            f"The model '{model.name}' gives probabilities, but logits are meant: their "
            "softmax is all but uniform. Take the activation off its last layer."
        )
    return found


def logits_of_both(first, second, samples, batch_size: int) -> list[np.ndarray]:
    """Give the logits of two models of the same classes.

    Raises:
        ValueError: as `logits_of`, or they are of different class counts.
    """
    logits = [logits_of(model, samples, batch_size) for model in (first, second)]
    if logits[0].shape != logits[1].shape:
        raise ValueError(
            "Student and teacher tell the same classes apart; got logits of the shapes "
            f"{logits[0].shape} and {logits[1].shape}."
        )
    return logits


def predicted(model: keras.Model, samples, batch_size: int) -> np.ndarray:
    """Give a model's logits or probabilities of samples, `(N, K)`.

    Raises:
        TypeError: it does not predict.
        ValueError: it gives something else, or one number.
    """
    if not hasattr(model, "predict"):
        raise TypeError(
            f"A model that predicts is looked at; got {type(model).__name__}. Of an "
            "EnsembleTeacher's models make a kd.Ensemble."
        )
    found = model.predict(samples.images, batch_size=batch_size, verbose=0)
    if np.ndim(found) != 2 or len(found) != len(samples.images):
        shapes = keras.tree.map_structure(np.shape, found)
        raise ValueError(
            f"The model '{model.name}' should give one vector for each of the "
            f"{len(samples.images)} samples, (N, K); it gave {shapes}."
        )
    if found.shape[-1] < 2:
        raise ValueError(
            f"The model '{model.name}' gives one number a sample, which is not a vector "
            "of classes. Of a model of two classes give both logits, 0 and its own."
        )
    return found


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
