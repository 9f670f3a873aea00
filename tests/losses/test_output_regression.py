"""Output regression against NumPy in float64."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.losses import OutputRegression


@pytest.mark.parametrize("shape", [(6, 3), (6, 1), (2, 4, 3), (2, 3, 3, 1)])
def test_equals_numpy(shape):
    teacher, student = np.random.default_rng(0).normal(size=(2, *shape))
    found = OutputRegression(reduction=None)(teacher, student)
    expected = np.mean((student - teacher) ** 2, axis=-1)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5)


def test_outputs_without_a_last_axis():
    """A regressor may return `(B,)`."""
    teacher, student = np.random.default_rng(0).normal(size=(2, 6))
    found = OutputRegression(reduction=None)(teacher, student)
    expected = (student - teacher) ** 2
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5)


def test_scale_is_that_of_mean_squared_error():
    teacher, student = np.random.default_rng(0).normal(size=(2, 6, 3))
    found, label_loss = OutputRegression(), keras.losses.MeanSquaredError()
    np.testing.assert_allclose(
        float(found(teacher, student)), float(label_loss(teacher, student)), rtol=1e-6
    )


def test_gradient_by_hand(gradient):
    """Gaps of 1 and 3 of one sample: 2 / K times the gap."""
    teacher, student = np.array([[[0.0, 0.0]], [[1.0, 3.0]]])
    grad = gradient(lambda z: OutputRegression()(teacher, z), student)
    np.testing.assert_allclose(grad, [[1.0, 3.0]], rtol=1e-6)


def test_outputs_of_other_shapes_are_refused():
    def net(width):
        return keras.Sequential([keras.Input((4,)), layers.Dense(width)])

    terms = [kd.Term(OutputRegression())]
    with pytest.raises(ValueError, match="the outputs differ: the student"):
        kd.Distiller(net(2), net(3), terms=terms)
    adapter = kd.Term(OutputRegression(), adapter=layers.Dense(3))
    assert kd.Distiller(net(2), net(3), terms=[adapter]).built
