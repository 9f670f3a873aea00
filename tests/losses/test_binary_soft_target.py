"""Soft targets of independent labels against NumPy in float64."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill.losses import BinarySoftTarget, SoftTarget


def binary_soft_target(teacher, student, temperature):
    """Mean over the labels of the divergence of two Bernoulli distributions."""
    p, q = (
        1 / (1 + np.exp(-z.astype("float64") / temperature)) for z in (teacher, student)
    )
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return temperature**2 * divergence.mean(-1)


@pytest.fixture
def logits():
    return 3.0 * np.random.default_rng(0).normal(size=(2, 6, 5))


def values(loss, *sides):
    return ops.convert_to_numpy(loss(*(x.astype("float32") for x in sides)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equals_numpy(logits, temperature):
    found = values(BinarySoftTarget(temperature, reduction=None), *logits)
    np.testing.assert_allclose(
        found, binary_soft_target(*logits, temperature), rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(4, 1), (4, 3, 2), (2, 3, 3, 1)])
def test_one_logit_and_other_ranks(shape):
    """The last axis alone is reduced: one value per token or pixel."""
    logits = np.random.default_rng(1).normal(size=(2, *shape))
    found = values(BinarySoftTarget(2.0, reduction=None), *logits)
    assert found.shape == shape[:-1]
    np.testing.assert_allclose(
        found, binary_soft_target(*logits, 2.0), rtol=1e-5, atol=1e-6
    )


def test_outputs_without_a_last_axis(logits):
    """A binary classifier may return `(B,)`."""
    flat = [side[:, 0] for side in logits]
    found = values(BinarySoftTarget(2.0, reduction=None), *flat)
    expected = binary_soft_target(*(z[:, None] for z in flat), 2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_one_logit_is_soft_targets_of_two_classes(logits):
    """A sigmoid of z is the softmax of z and 0."""
    one = [side[:, :1] for side in logits]
    two = [np.concatenate([np.zeros_like(z), z], -1) for z in one]
    binary = values(BinarySoftTarget(4.0), *one)
    np.testing.assert_allclose(binary, values(SoftTarget(4.0), *two), rtol=1e-5)


def test_gradient_equals_finite_differences(logits, gradient, central_difference):
    teacher, student = logits
    loss = BinarySoftTarget(2.0)
    grad = gradient(lambda z: loss(teacher, z), student)
    expected = central_difference(
        lambda z: binary_soft_target(teacher, z, 2.0).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)


def test_is_a_quarter_of_the_gap_of_logits_in_the_limit(logits, gradient):
    teacher, student = logits
    grad = gradient(lambda z: BinarySoftTarget(1000.0)(teacher, z), student)
    gap = (student - teacher) / 4.0 / student.size
    np.testing.assert_allclose(grad, gap, atol=0.01 * np.abs(gap).max())


def test_an_impossible_label_on_both_sides_counts_nothing(logits, gradient):
    """0 * log 0 is 0, in the value and in the gradient."""
    teacher, student = (x.astype("float32") for x in logits)
    open_labels = values(BinarySoftTarget(2.0), teacher[:, :3], student[:, :3])
    teacher[:, 3], teacher[:, 4] = student[:, 3], student[:, 4] = -np.inf, np.inf
    loss = BinarySoftTarget(2.0)
    np.testing.assert_allclose(
        values(loss, teacher, student), 3 / 5 * open_labels, rtol=1e-5
    )
    grad = gradient(lambda z: loss(teacher, z), student)
    np.testing.assert_array_equal(grad[:, 3:], 0.0)
    assert np.isfinite(grad).all() and np.abs(grad[:, :3]).min() > 0


def test_an_impossible_label_on_one_side(logits):
    """It is finite where the teacher excludes a label, infinite where the student does."""
    teacher, student = (x.astype("float32") for x in logits)
    without = teacher.copy()
    without[0, 0] = -np.inf
    assert np.isfinite(values(BinarySoftTarget(), without, student))
    without = student.copy()
    without[0, 0] = -np.inf
    assert np.isposinf(values(BinarySoftTarget(), teacher, without))


def test_schedule_and_config():
    schedule = keras.optimizers.schedules.ExponentialDecay(8.0, 10, 0.5)
    loss = BinarySoftTarget(schedule, name="mine")
    again = BinarySoftTarget.from_config(loss.get_config())
    assert again.name == "mine" and float(again.temperature(10)) == 4.0
    assert BinarySoftTarget().name == "binary_soft_target"


def test_temperature_must_be_above_0():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        BinarySoftTarget(0.0)
