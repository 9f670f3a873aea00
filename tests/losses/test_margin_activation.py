"""Margin activation against NumPy, and the normalization found at the tap."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats

import keras_distill as kd
from keras_distill.losses import MarginActivation


def margin(scale, offset):
    """Mean of the negative part of a Gaussian, by SciPy; far above 0, -3 deviations."""
    means = []
    for s, m in zip(scale, offset, strict=True):
        if stats.norm.cdf(0, m, s) > 1e-3:
            means.append(stats.truncnorm.mean(-np.inf, -m / s, m, s))
        else:
            means.append(-3 * s)
    return np.array(means)


def margin_activation(teacher, student, scale, offset):
    target = np.maximum(teacher, margin(scale, offset))
    counts = (student > target) | (target > 0)
    return (counts * (student - target) ** 2).reshape(len(target), -1).mean(-1)


NORM = np.array([0.5, 1.0, 2.0, 0.3]), np.array([0.2, -1.0, 0.0, 2.0])


@pytest.fixture
def maps():
    return 2 * np.random.default_rng(0).normal(size=(2, 3, 2, 3, 4))


def test_equals_numpy(maps):
    norm = tuple(x.astype("float32") for x in NORM)
    actual = MarginActivation(reduction=None)(*maps, teacher_norm=norm)
    np.testing.assert_allclose(actual, margin_activation(*maps, *NORM), rtol=1e-4)


def test_gradient_equals_finite_differences(maps, gradient, central_difference):
    teacher, student = maps
    norm = tuple(x.astype("float32") for x in NORM)
    grad = gradient(
        lambda f: MarginActivation()(teacher, f, teacher_norm=norm), student
    )
    expected = central_difference(
        lambda f: margin_activation(teacher, f, *NORM).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def net(filters, name, norm=True):
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(filters, 3, padding="same")(x)
    if norm:
        x = layers.BatchNormalization(name="norm", scale=name != "plain")(x)
    x = layers.ReLU(name="stack1")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name=name)


@pytest.mark.parametrize("tap", [kd.Tap("stack1", side="input"), kd.Tap("norm")])
def test_a_distiller_finds_the_normalization(tap):
    keras.utils.set_random_seed(0)
    student, teacher = net(4, "student"), net(6, "teacher")
    norm = teacher.get_layer("norm")
    norm.gamma.assign(np.linspace(-1.0, 1.5, 6))
    norm.beta.assign(np.linspace(-0.5, 0.5, 6))
    before = [np.array(w) for w in teacher.weights]
    term = kd.Term(MarginActivation(), "norm", tap, weight=1.0)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    scale, offset = distiller.teacher.norm(
        distiller.terms["margin_activation"].term.teacher[0]
    )
    np.testing.assert_allclose(scale, np.abs(np.linspace(-1.0, 1.5, 6)), rtol=1e-6)
    np.testing.assert_allclose(offset, np.linspace(-0.5, 0.5, 6), rtol=1e-6)
    distiller.compile(keras.optimizers.Adam(0.02))
    x = np.random.default_rng(0).normal(size=(128, 8, 8, 1)).astype("float32")
    history = distiller.fit(x, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
    for weight, old in zip(teacher.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert not any(w is v for w in distiller.weights for v in teacher.weights)


def test_a_normalization_without_scale_and_a_member_of_an_ensemble():
    student = net(4, "student")
    teacher = kd.EnsembleTeacher([net(6, "plain"), net(6, "other")])
    before = kd.Tap("0/stack1", side="input")
    distiller = kd.Distiller(
        student, teacher, terms=[kd.Term(MarginActivation(), "norm", before)]
    )
    np.testing.assert_array_equal(distiller.teacher.norm(before)[0], np.ones(6))


def test_the_sums_of_residual_blocks():
    """Block 1 adds a normalized branch to an input, block 2 two normalized branches."""
    student, teacher = (
        kd.models.resnet((8, 8, 1), 3, depth=8, width=w) for w in (2, 4)
    )
    rng = np.random.default_rng(0)
    for layer in teacher.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(rng.normal(size=layer.gamma.shape))
            layer.beta.assign(rng.normal(size=layer.beta.shape))
    taps = [kd.Tap(stage, side="input") for stage in ("stack1", "stack2")]
    terms = [
        kd.Term(MarginActivation(), tap, tap, name=name)
        for tap, name in zip(taps, ("first", "second"), strict=True)
    ]
    distiller = kd.Distiller(student, teacher, terms=terms)
    for tap, names in zip(
        taps,
        (
            ["stack1_block1_b_norm"],
            ["stack2_block1_b_norm", "stack2_block1_shortcut_norm"],
        ),
        strict=True,
    ):
        norms = [teacher.get_layer(name) for name in names]
        scale, offset = distiller.teacher.norm(tap)
        expected = sum(np.array(norm.gamma, "float64") ** 2 for norm in norms) ** 0.5
        np.testing.assert_allclose(scale, expected, rtol=1e-5)
        expected = sum(np.array(norm.beta) for norm in norms)
        np.testing.assert_allclose(offset, expected, rtol=1e-5)


def test_a_tap_without_normalization():
    term = kd.Term(MarginActivation(), "norm", "stack1")
    with pytest.raises(
        ValueError, match=r"'stack1' is not .* a batch normalization of 'teacher'"
    ):
        kd.Distiller(net(4, "student"), net(6, "teacher"), terms=[term])
    with pytest.raises(ValueError, match="is not the output of a batch normalization"):
        kd.Distiller(net(4, "student"), net(6, "teacher", norm=False), terms=[term])
