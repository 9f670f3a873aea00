"""Predictions of models, in float64, and what is computed from several of them."""

import keras
import numpy as np

from keras_distill._backend.number_checks import check_integers
from keras_distill.data.preprocessing import preprocessing_of
from keras_distill.taps import Tap
from keras_distill.taps.last_activations import (
    LINEAR,
    SIGMOID,
    SOFTMAX,
    last_activation,
)
from keras_distill.taps.tracing import input_of


def logits_of(model: keras.Model, samples, batch_size: int) -> np.ndarray:
    """Return a model's logits of samples, `(N, K)`; other outputs raise an error."""
    logits = outputs_of(model, samples, batch_size).astype("float64")
    if _are_probabilities(model, samples, logits):
        raise ValueError(
            f"Expected logits, but the model '{model.name}' returns probabilities, whose "
            "softmax is nearly uniform. Pass kd.as_logits(model)."
        )
    return logits


def logits_of_both(student, teacher, samples, batch_size: int) -> list[np.ndarray]:
    """Return the logits of student and teacher, `(N, K)` each, with the same K."""
    logits = [logits_of(model, samples, batch_size) for model in (student, teacher)]
    if logits[0].shape != logits[1].shape:
        raise ValueError(
            "Student and teacher must have the same classes; got logits of shapes "
            f"{logits[0].shape} and {logits[1].shape}."
        )
    return logits


def outputs_of(model: keras.Model, samples, batch_size: int) -> np.ndarray:
    """Return a model's logits or probabilities of samples, `(N, K)` with K > 1.

    One logit z of a binary classifier is returned as the logits 0 and z of two classes,
    one probability p as 1 - p and p. The last layer shows which it is; where it does not,
    numbers that all lie in 0..1 are probabilities.
    """
    check_integers(1, batch_size=batch_size)
    if not hasattr(model, "predict"):
        raise TypeError(
            f"Expected a model with `predict`; got {type(model).__name__}. For the models "
            "of an `EnsembleTeacher`, create a `kd.Ensemble`."
        )
    outputs = model.predict(samples.images, batch_size=batch_size, verbose=0)
    if np.ndim(outputs) != 2 or len(outputs) != len(samples.images):
        shapes = keras.tree.map_structure(np.shape, outputs)
        raise ValueError(
            f"Expected the model '{model.name}' to return one vector for each of the "
            f"{len(samples.images)} samples, (N, K); got {shapes}."
        )
    if outputs.shape[-1] == 1:
        is_probability = _are_probabilities(model, samples, outputs)
        other = 1.0 - outputs if is_probability else 0.0 * outputs
        return np.concatenate([other, outputs], axis=-1)
    return outputs


def _are_probabilities(model, samples, outputs: np.ndarray) -> bool:
    """Whether outputs are no logits: as the last layer shows, else by their values."""
    rounding = 0.0 if outputs.shape[-1] == 1 else 1e-3
    if not (outputs.min() >= 0.0 and outputs.max() <= 1.0 + rounding):
        return False
    end = _end_of(model, samples)
    if end in (LINEAR, SIGMOID, SOFTMAX):
        return end != LINEAR
    return outputs.shape[-1] == 1 or np.allclose(outputs.sum(-1), 1.0, atol=1e-3)


def _end_of(model, samples) -> str | None:
    """Return the activation that a model ends in, None if that is unknown."""
    if not isinstance(model, keras.Model):
        return None
    inputs = input_of(model)
    if inputs is None and preprocessing_of(model) is None:
        inputs = next(in_batches(samples.images, 1))
    return None if inputs is None else last_activation(model, inputs, Tap.output())


def classes_of(samples) -> np.ndarray:
    """Return the labels of samples as classes, `(N,)`; other labels raise an error."""
    labels = np.asarray(samples.labels)
    if labels.ndim == 2 and labels.shape[-1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or (labels != np.round(labels)).any():
        raise ValueError(
            "Expected one class per sample as label, (N,); got labels of shape "
            f"{labels.shape}, type {labels.dtype}. There is no one predicted class for "
            "independent labels or for a regression: compare each label as a binary "
            "classifier, or the outputs themselves."
        )
    return labels.astype("int64") if labels.dtype.kind == "f" else labels


def in_batches(images, batch_size: int):
    """Yield images as tensors, batch by batch."""
    for start in range(0, len(images), batch_size):
        yield keras.ops.convert_to_tensor(images[start : start + batch_size])


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return softened probabilities of logits `(..., K)`."""
    logits = logits / temperature
    scores = np.exp(logits - logits.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities of logits `(..., K)`."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def ratio(x: np.ndarray, by: np.ndarray, where=True) -> np.ndarray:
    """Divide elementwise; NaN where the divisor is 0, and outside of `where`."""
    return np.divide(x, by, out=np.full(by.shape, np.nan), where=where & (by != 0))
