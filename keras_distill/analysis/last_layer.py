"""The geometry of a student's last layer, and what a teacher made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from keras_distill import taps
from keras_distill.analysis.predictions import in_batches, logits_of, softmax
from keras_distill.taps.recording import record
from keras_distill.taps.tracing import input_of


@dataclasses.dataclass(frozen=True)
class LastLayer:
    """How far samples and classes are from each other in front of the logits.

    Args:
        between: distances of the classes' weights, `(K, K)`.
        to_classes: mean over the samples of each class of the squared distance of the
            features from each class's weights, `(K, K)`, rows by the true class.
        teacher: mean of the teacher's softened prediction, `(K, K)`, rows likewise.
        agreement: of each sample, the rank correlation over the wrong classes of the
            teacher's probability with nearness, `(N,)`; 1 where the order is that of
            proposition 1.

    Example:
        >>> kd.analysis.last_layer_geometry(student, teacher, digits.test).between
    """

    between: np.ndarray
    to_classes: np.ndarray
    teacher: np.ndarray
    agreement: np.ndarray


def last_layer_geometry(
    student: keras.Model,
    teacher: keras.Model,
    samples,
    *,
    temperature: float = 4.0,
    batch_size: int = 1000,
) -> LastLayer:
    """Measure a student's last layer against proposition 1 of Tang 2020.

    A logit is, but for norms, the squared distance of the features h from the weights
    of its class,

        z_i = (|h|^2 + |w_i|^2 - |h - w_i|^2) / 2

    Label smoothing pushes all wrong classes equally far; distillation, at its optimum,
    orders them:

        |h - w_i|^2 < |h - w_j|^2   if and only if   p_i > p_j

    for weights of one norm. How far a student is there says how much of the teacher's
    class relations it took. A bias counts as one more feature that is always 1.

    Args:
        student: its last layer is a `Dense` one.
        teacher: gives logits `(B, K)`.
        samples: with `images` and `labels`; each class is among them.
        temperature: of the teacher's prediction, which orders the classes the same at
            any. Default 4.
        batch_size: Default 1000.

    Returns:
        A `LastLayer`.

    Raises:
        ValueError: another last layer, a class without samples, nets of different
            class counts, or less than three classes, whose wrong ones have no order.

    Example:
        >>> found = kd.analysis.last_layer_geometry(student, teacher, digits.test)
        >>> found.agreement.mean()

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation,
        proposition 1; after Mueller et al. 2019, When does label smoothing help?
    """
    weights = class_vectors(student, with_bias=True)
    labels, classes = np.asarray(samples.labels), len(weights)
    counts = np.bincount(labels, minlength=classes)
    if classes < 3 or (counts == 0).any():
        raise ValueError(
            "The order of wrong classes needs three classes or more and samples of "
            f"each; got samples by class {counts.tolist()}."
        )
    features = _features(student, samples, batch_size)
    with_one = features.shape[1] + 1 == weights.shape[1]
    if with_one:
        features = np.c_[features, np.ones(len(features))]
    logits = logits_of(teacher, samples, batch_size)
    if logits.shape[-1] != classes:
        raise ValueError(
            f"Student and teacher tell the same classes apart; the student's last layer "
            f"has {classes}, the teacher gives {logits.shape[-1]} logits."
        )
    p = softmax(logits, temperature)
    gaps = (
        (features**2).sum(1)[:, None]
        + (weights**2).sum(1)[None, :]
        - 2.0 * features @ weights.T
    )
    own = np.eye(classes)[labels]
    by_class = lambda values: (own.T @ values) / counts[:, None]  # noqa: E731
    differences = weights[:, None] - weights[None, :]
    return LastLayer(
        between=np.linalg.norm(differences, axis=-1),
        to_classes=by_class(gaps),
        teacher=by_class(p),
        agreement=_rank_correlation(-gaps, p, own > 0),
    )


def plot_last_layer(found: Mapping[str, LastLayer]):
    """Draw the distances of each student's features from the classes, by true class.

    Args:
        found: of `last_layer_geometry`, by the name of the student.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> kd.analysis.plot_last_layer({"labels": alone, "distilled": distilled})
    """
    from matplotlib.figure import Figure

    columns = len(found) + 1
    figure = Figure(figsize=(4 * columns, 3.8), layout="constrained")
    axes = figure.subplots(1, columns)
    for axis, (name, one) in zip(axes, found.items(), strict=False):
        image = axis.imshow(one.to_classes, cmap="viridis")
        mean = np.nanmean(one.agreement)
        axis.set_title(f"{name}: |h - w|², order agrees {mean:.2f}", fontsize="small")
        figure.colorbar(image, ax=axis, shrink=0.8)
    last = next(iter(found.values()))
    hidden = np.where(np.eye(len(last.teacher)), np.nan, last.teacher)
    image = axes[-1].imshow(hidden, cmap="viridis_r")
    axes[-1].set_title("the teacher's p of wrong classes", fontsize="small")
    figure.colorbar(image, ax=axes[-1], shrink=0.8)
    for axis in axes:
        axis.set(xlabel="class", ylabel="true class")
    return figure


def class_vectors(model: keras.Model, with_bias: bool = False) -> np.ndarray:
    """Give the weights of each class in a model's last layer, `(K, D)`, in float64.

    Args:
        model: its last layer is a `Dense` one.
        with_bias: as one more column, if there is one.

    Raises:
        ValueError: another last layer.
    """
    layer = _last(model)
    vectors = keras.ops.convert_to_numpy(layer.kernel).astype("float64").T
    if with_bias and layer.bias is not None:
        bias = keras.ops.convert_to_numpy(layer.bias).astype("float64")
        vectors = np.c_[vectors, bias]
    return vectors


def _last(model) -> keras.layers.Dense:
    inputs = input_of(model)
    layer = taps.outline(model, inputs)[1] if inputs is not None else None
    if not isinstance(layer, keras.layers.Dense):
        kind = "its own code" if layer is None else f"a {type(layer).__name__}"
        raise ValueError(
            f"The weights of a class are those of a Dense layer that ends the model; "
            f"'{model.name}' ends in {kind}. Take a model of known inputs that ends in "
            "a Dense layer, without an activation behind it."
        )
    return layer


def _features(model, samples, batch_size: int) -> np.ndarray:
    """Give what the last layer takes, `(N, D)`."""
    layer, found = _last(model), []
    for images in in_batches(samples.images, batch_size):
        with record([layer]) as calls:
            model(images, training=False)
        given = keras.tree.flatten(calls[id(layer)][-1][0])[0]
        found.append(keras.ops.convert_to_numpy(given))
    return np.concatenate(found).astype("float64")


def _rank_correlation(near, p, own) -> np.ndarray:
    """Correlate ranks over the wrong classes, row by row; NaN where one is constant."""
    from scipy.stats import rankdata

    classes = near.shape[1]
    rows = [rankdata(x[~own].reshape(-1, classes - 1), axis=1) for x in (near, p)]
    a, b = (row - row.mean(1, keepdims=True) for row in rows)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide(
        (a * b).sum(1), norms, out=np.full(len(a), np.nan), where=norms > 0
    )
