"""Last-layer geometry against its definition, and at the optimum of distillation."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.analysis.samples import giving, numbered
from tests.formulas import softmax


def net(bias=True):
    keras.utils.set_random_seed(3)
    x = keras.Input((6,))
    h = keras.layers.Dense(5, "tanh", name="hidden")(x)
    return keras.Model(x, keras.layers.Dense(4, use_bias=bias, name="logits")(h))


@pytest.mark.parametrize("bias", [True, False])
def test_distances_are_those_of_features_and_weights(bias):
    rng = np.random.default_rng(0)
    student = net(bias)
    x = rng.normal(size=(40, 6)).astype("float32")
    samples = kd.data.Samples(x, np.arange(40) % 4)
    if bias:
        student.get_layer("logits").bias.assign(rng.normal(size=4))
    teacher = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    found = kd.analysis.last_layer_geometry(student, teacher, samples, temperature=2.0)
    layer = student.get_layer("logits")
    weights = np.array(layer.kernel, "float64").T
    h = np.tanh(x @ np.array(student.get_layer("hidden").kernel))
    if bias:
        weights = np.c_[weights, np.array(layer.bias)]
        h = np.c_[h, np.ones(40)]
    gaps = ((h[:, None] - weights[None]) ** 2).sum(-1)
    p = softmax(x @ np.array(teacher.layers[0].kernel), 2.0)
    for k in range(4):
        of_class = samples.labels == k
        np.testing.assert_allclose(
            found.to_classes[k], gaps[of_class].mean(0), atol=1e-4
        )
        np.testing.assert_allclose(found.teacher[k], p[of_class].mean(0), atol=1e-5)
    expected = np.linalg.norm(weights[0] - weights[2])
    assert found.between[0, 2] == pytest.approx(expected, rel=1e-5)


def test_at_the_optimum_the_order_is_the_teachers():
    """Features as near to the classes as the teacher's p, and weights of equal norm."""
    weights = np.eye(4)
    p = np.array([[0.7, 0.2, 0.09, 0.01], [0.1, 0.6, 0.25, 0.05]])
    x = keras.Input((4,))
    student = keras.Model(x, keras.layers.Dense(4, use_bias=False)(x))
    student.layers[-1].kernel.assign(weights)
    features = np.log(np.repeat(p, 2, axis=0)).astype("float32")
    # One sample per class; only the order of the wrong classes counts.
    labels = np.arange(4)
    samples = kd.data.Samples(features, labels)
    teacher = keras.Model(x, keras.layers.Activation("linear")(x))
    found = kd.analysis.last_layer_geometry(student, teacher, samples)
    np.testing.assert_allclose(found.agreement, 1.0)
    backwards = keras.Model(x, keras.layers.Rescaling(-1.0)(x))
    found = kd.analysis.last_layer_geometry(student, backwards, samples)
    np.testing.assert_allclose(found.agreement, -1.0)


def of_equal_norm():
    """Return a model with features of equal norm, and class weights of equal norm."""
    keras.utils.set_random_seed(3)
    x = keras.Input((6,))
    h = keras.layers.Dense(16, "tanh")(x)
    h = keras.layers.Rescaling(8.0)(keras.layers.UnitNormalization()(h))
    unit = keras.constraints.UnitNorm(axis=0)
    last = keras.layers.Dense(6, use_bias=False, kernel_constraint=unit)
    return keras.Model(x, last(h))


@pytest.mark.long
def test_distillation_orders_classes_better_than_labels():
    """The classes are orthogonal in the inputs; only the teacher relates them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 256)
    x = (np.eye(6)[labels] + 0.1 * rng.normal(size=(256, 6))).astype("float32")
    teacher = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    teacher.layers[0].kernel.assign(6.0 * np.eye(6) + rng.uniform(-3, 3, (6, 6)))
    samples = kd.data.Samples(x, labels)
    labeled, soft = of_equal_norm(), of_equal_norm()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    labeled.compile(keras.optimizers.Adam(0.02), loss)
    labeled.fit(x, labels, epochs=30, verbose=0)
    distiller = kd.Distiller(soft, teacher, label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.02))
    distiller.fit(x, epochs=30, verbose=0)
    by_labels, by_teacher = (
        np.nanmean(kd.analysis.last_layer_geometry(net, teacher, samples).agreement)
        for net in (labeled, soft)
    )
    assert by_teacher > 0.9 and by_teacher > by_labels + 0.3


def test_bad_input_is_rejected():
    teacher = giving(np.eye(4))
    with pytest.raises(ValueError, match="samples by class"):
        kd.analysis.last_layer_geometry(net(), teacher, numbered([0, 1, 2, 2]))
    with pytest.raises(ValueError, match="ends in a Given"):
        kd.analysis.last_layer_geometry(teacher, teacher, numbered([0, 1, 2, 3]))
