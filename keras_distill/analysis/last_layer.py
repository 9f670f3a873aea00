"""Geometry of a student's last layer, compared with the teacher's predictions."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from keras_distill import taps
from keras_distill._backend.number_checks import check_above, check_integers
from keras_distill._backend.optional import require
from keras_distill.analysis.figures import new_figure
from keras_distill.analysis.predictions import (
    classes_of,
    in_batches,
    logits_of,
    ratio,
    softmax,
)
from keras_distill.taps.recording import record
from keras_distill.taps.tracing import input_of


@dataclasses.dataclass(frozen=True)
class LastLayer:
    """Distances of features and class weights at the input of the last layer.

    Args:
        between: distances between the classes' weights, `(K, K)`.
        to_classes: mean squared distance of the features of each true class (rows) from
            the weights of each class (columns), `(K, K)`.
        teacher: mean softened prediction of the teacher by true class (rows), `(K, K)`.
        agreement: rank correlation of the teacher's probabilities of the wrong classes
            with their nearness, for each sample, `(N,)`; 1 where the order is that of
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
    r"""Compare a student's last layer with proposition 1 of Tang et al. 2020.

    Up to norms, a logit is the squared distance of the features h from the weights of
    its class,

    .. math::

        z_i = \frac{1}{2} \left( \lVert h \rVert^2 + \lVert w_i \rVert^2
            - \lVert h - w_i \rVert^2 \right)

    Label smoothing pushes all wrong classes equally far away; at the optimum of
    distillation, they are ordered:

    .. math::

        \lVert h - w_i \rVert^2 < \lVert h - w_j \rVert^2 \iff p_i > p_j

    for weights of equal norm. The agreement of both orders measures how much of the
    teacher's class relations the student learned. A bias is treated as the weight of a
    feature that is always 1.

    Args:
        student: its last layer is a `keras.layers.Dense`.
        teacher: returns logits `(B, K)`.
        samples: `kd.data.Samples`, or any object with `images` and `labels`, with samples
            of every class.
        temperature: softens the teacher's predictions, which keeps their order. Default 4.
        batch_size: Default 1000.

    Returns:
        A `LastLayer`.

    Raises:
        ValueError: the last layer is of another type, a class has no samples, the models
            differ in the number of classes, or there are fewer than three classes.

    Example:
        >>> found = kd.analysis.last_layer_geometry(student, teacher, digits.test)
        >>> found.agreement.mean()

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation,
        proposition 1; after Mueller et al. 2019, When does label smoothing help?
    """
    check_above(0, temperature=temperature)
    check_integers(1, batch_size=batch_size)
    weights = class_vectors(student, with_bias=True)
    labels, classes = classes_of(samples), len(weights)
    counts = np.bincount(labels, minlength=classes)
    if classes < 3 or (counts == 0).any():
        raise ValueError(
            "The order of wrong classes needs at least three classes and samples of "
            f"each; got samples by class {counts.tolist()}."
        )
    features = _features(student, samples, batch_size)
    if features.shape[1] + 1 == weights.shape[1]:
        features = np.c_[features, np.ones(len(features))]
    logits = logits_of(teacher, samples, batch_size)
    if logits.shape[-1] != classes:
        raise ValueError(
            "Student and teacher must have the same classes; the student's last layer "
            f"has {classes}, and the teacher returns {logits.shape[-1]} logits."
        )
    p = softmax(logits, temperature)
    gaps = (
        (features**2).sum(1)[:, None]
        + (weights**2).sum(1)[None, :]
        - 2.0 * features @ weights.T
    )
    one_hot = np.eye(classes)[labels]
    # Means by class.
    to_classes, by_teacher = (one_hot.T @ x / counts[:, None] for x in (gaps, p))
    return LastLayer(
        between=np.linalg.norm(weights[:, None] - weights[None, :], axis=-1),
        to_classes=to_classes,
        teacher=by_teacher,
        agreement=_rank_correlation(-gaps, p, one_hot > 0),
    )


def plot_last_layer(geometries: Mapping[str, LastLayer]):
    """Return a figure of the distances of features from the classes, by true class.

    Args:
        geometries: results of `last_layer_geometry`, by the name of the student.

    Example:
        >>> found = kd.analysis.last_layer_geometry(student, teacher, digits.test)
        >>> kd.analysis.plot_last_layer({"distilled": found})
    """
    columns = len(geometries) + 1
    figure, (axes,) = new_figure(4 * columns, 3.8, 1, columns)
    for axis, (name, one) in zip(axes, geometries.items(), strict=False):
        image = axis.imshow(one.to_classes, cmap="viridis")
        mean = np.nanmean(one.agreement)
        axis.set_title(f"{name}: |h - w|², agreement {mean:.2f}", fontsize="small")
        figure.colorbar(image, ax=axis, shrink=0.8)
    last = next(iter(geometries.values()))
    hidden = np.where(np.eye(len(last.teacher)), np.nan, last.teacher)
    image = axes[-1].imshow(hidden, cmap="viridis_r")
    axes[-1].set_title("teacher's p of the wrong classes", fontsize="small")
    figure.colorbar(image, ax=axes[-1], shrink=0.8)
    for axis in axes:
        axis.set(xlabel="class", ylabel="true class")
    return figure


def class_vectors(model: keras.Model, with_bias: bool = False) -> np.ndarray:
    """Return each class's weights in a model's `Dense` last layer, `(K, D)`, in float64.

    `with_bias` appends the bias, if there is one, as a column.
    """
    layer = _last_layer(model)
    vectors = keras.ops.convert_to_numpy(layer.kernel).astype("float64").T
    if with_bias and layer.bias is not None:
        return np.c_[vectors, keras.ops.convert_to_numpy(layer.bias)]
    return vectors


def _last_layer(model) -> keras.layers.Dense:
    inputs = input_of(model)
    layer = taps.outline(model, inputs)[1] if inputs is not None else None
    if not isinstance(layer, keras.layers.Dense):
        kind = "its own code" if layer is None else f"a {type(layer).__name__}"
        raise ValueError(
            "The weights of the classes are those of a Dense layer at the end of the "
            f"model; '{model.name}' ends in {kind}. Use a model with known inputs that "
            "ends in a Dense layer, without an activation after it."
        )
    return layer


def _features(model, samples, batch_size: int) -> np.ndarray:
    """Return the inputs of the last layer, `(N, D)`."""
    layer, features = _last_layer(model), []
    for images in in_batches(samples.images, batch_size):
        with record([layer], model=model) as calls:
            model(images, training=False)
        inputs = keras.tree.flatten(calls[id(layer)][-1][0])[0]
        features.append(keras.ops.convert_to_numpy(inputs))
    return np.concatenate(features).astype("float64")


def _rank_correlation(nearness, p, true_class) -> np.ndarray:
    """Correlate ranks over the wrong classes of each row; NaN where one is constant."""
    stats = require("scipy.stats", "kd.analysis.last_layer_geometry")
    shape = -1, p.shape[1] - 1
    ranks = [
        stats.rankdata(x[~true_class].reshape(shape), axis=1) for x in (nearness, p)
    ]
    a, b = (row - row.mean(1, keepdims=True) for row in ranks)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return ratio((a * b).sum(1), norms)
