"""Decoupled targets against NumPy in float64."""

import numpy as np
import pytest

from keras_distill.losses import DecoupledTarget, SoftTarget
from tests.formulas import softmax

LABELS = np.array([0, 4, 2, 1])


def decoupled(teacher, student, labels, temperature, alpha, beta):
    values = []
    for z_t, z_s, y in zip(teacher, student, labels, strict=True):
        p, q = softmax(z_t / temperature), softmax(z_s / temperature)
        binary = p[y] * np.log(p[y] / q[y])
        binary += (1 - p[y]) * np.log((1 - p[y]) / (1 - q[y]))
        rest = [j for j in range(len(p)) if j != y]
        o_t = softmax(z_t[rest] / temperature)
        o_s = softmax(z_s[rest] / temperature)
        among = (o_t * np.log(o_t / o_s)).sum()
        values.append(temperature**2 * (alpha * binary + beta * among))
    return np.array(values)


@pytest.fixture
def logits():
    return 3 * np.random.default_rng(0).normal(size=(2, 4, 5))


@pytest.mark.parametrize(("temperature", "alpha", "beta"), [(1, 1, 8), (4, 0.5, 2)])
def test_equals_numpy(logits, temperature, alpha, beta):
    loss = DecoupledTarget(temperature, alpha=alpha, beta=beta, reduction=None)
    expected = decoupled(*logits, LABELS, temperature, alpha, beta)
    np.testing.assert_allclose(loss(*logits, labels=LABELS), expected, rtol=1e-4)


def test_soft_targets_are_the_sum_of_its_parts(logits):
    """KL = binary + (1 - p_y) * among the others."""
    teacher, student = logits
    one = {"reduction": None}
    binary = DecoupledTarget(2.0, alpha=1.0, beta=0.0, **one)
    among = DecoupledTarget(2.0, alpha=0.0, beta=1.0, **one)
    rest = 1 - softmax(teacher / 2)[np.arange(4), LABELS]
    whole = binary(*logits, labels=LABELS) + rest * among(*logits, labels=LABELS)
    np.testing.assert_allclose(
        whole, SoftTarget(2.0, **one)(teacher, student), rtol=1e-4
    )


def test_gradient_equals_finite_differences(logits, gradient, central_difference):
    teacher, student = logits
    loss = DecoupledTarget(2.0)
    grad = gradient(lambda z: loss(teacher, z, labels=LABELS), student)
    expected = central_difference(
        lambda z: decoupled(teacher, z, LABELS, 2.0, 1.0, 8.0).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_a_confident_student_is_finite(gradient):
    """1 - p_y rounds to 0 outside of log space."""
    student = np.array([[60.0, 0.0, -10.0, 3.0, 1.0]])
    loss = DecoupledTarget(1.0)
    teacher = np.array([[5.0, 1.0, 0.0, 2.0, 1.0]])
    expected = decoupled(teacher, student, [1], 1.0, 1.0, 8.0)
    np.testing.assert_allclose(
        loss(teacher, student, labels=[1]), expected[0], rtol=1e-4
    )
    grad = gradient(lambda z: loss(teacher, z, labels=[0]), student)
    assert np.all(np.isfinite(grad)) and np.abs(grad).max() > 0.1


def test_bad_weights():
    with pytest.raises(ValueError, match="alpha must be 0 or more; got -1"):
        DecoupledTarget(alpha=-1)
