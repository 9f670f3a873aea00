"""Gradients of gradients through normalization, against finite differences."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_distill._backend import gradients
from tests.differentiation import differentiate

NORMS = {
    "batch": lambda: layers.BatchNormalization(dtype="float64"),
    "batch, axis 1": lambda: layers.BatchNormalization(axis=1, dtype="float64"),
    "layer": lambda: layers.LayerNormalization(dtype="float64"),
    "layer, axes": lambda: layers.LayerNormalization(axis=(1, 2), dtype="float64"),
    "group": lambda: layers.GroupNormalization(2, dtype="float64"),
    "group, axis 1": lambda: layers.GroupNormalization(3, axis=1, dtype="float64"),
}
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the correction is for TensorFlow's moments",
)


def draw(seed, shape=(4, 3, 6)):
    return np.random.default_rng(seed).normal(size=shape)


def tensor(array):
    return ops.convert_to_tensor(array, "float64")


def sequential(norm):
    """Create a model of a dense layer and a normalization, whose weights are drawn."""
    dense = layers.Dense(6, dtype="float64")
    model = keras.Sequential([keras.Input((3, 6), dtype="float64"), dense, norm])
    for seed, weight in enumerate(model.trainable_weights):
        weight.assign(draw(10 + seed, weight.shape))
    return model


def scalar(model, x):
    """Return a scalar of a model's output in training."""
    y = ops.tanh(model(x, training=True))
    return ops.sum(y * tensor(draw(1)))


def input_gradient(model, x):
    function = lambda x: ({"scalar": scalar(model, x)}, None)  # noqa: E731
    return gradients.by_input(function, x, model)[0]["scalar"]


@pytest.mark.parametrize("norm", NORMS)
def test_second_derivatives_equal_finite_differences(norm, central_difference):
    """Of a loss on the input gradient, by the weights before the normalization."""
    model = sequential(NORMS[norm]())
    variable, x = model.layers[0].kernel, tensor(draw(0))

    def value(kernel):
        with keras.StatelessScope([(variable, kernel)]):
            gradient = input_gradient(model, x)
        return ops.sum(gradient * tensor(draw(2)))

    start = ops.convert_to_numpy(variable)
    _, (found,) = differentiate(value, tensor(start))
    expected = central_difference(lambda kernel: float(value(tensor(kernel))), start)
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_first_derivatives_and_statistics_are_those_of_the_plain_layer(norm):
    corrected, plain = (sequential(NORMS[norm]()) for _ in range(2))
    x = tensor(draw(0))
    found = input_gradient(corrected, x)
    _, (expected,) = differentiate(lambda x: scalar(plain, x), x)
    pairs = [(found, expected), *zip(corrected.variables, plain.variables, strict=True)]
    for a, b in pairs:
        a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-12)


def test_only_the_model_changes_and_only_within_a_pass():
    """TensorFlow's moments and the classes stay, and so do layers of other models."""
    import tensorflow as tf

    moments, norms = tf.nn.moments, [NORMS[kind]() for kind in ("batch", "layer")]
    norms.append(NORMS["group"]())
    model = keras.Sequential([keras.Input((3, 6), dtype="float64"), *norms])
    other = NORMS["batch"]()
    classes = [type(norm) for norm in norms]
    before = [dict(vars(cls)) for cls in classes]
    attributes = [set(vars(x)) for x in (*norms, other)]

    def run(x):
        assert tf.nn.moments is moments
        assert [dict(vars(cls)) for cls in classes] == before
        assert set(vars(other)) == attributes[-1]
        changed = [
            set(vars(x)) - kept for x, kept in zip(norms, attributes[:-1], strict=True)
        ]
        assert changed == [{"_moments"}, {"call"}, {"_apply_normalization"}]
        return {"scalar": ops.sum(model(x, training=True))}, None

    gradients.by_input(run, tf.constant(draw(0)), model)
    assert [set(vars(x)) for x in (*norms, other)] == attributes
