"""Soft targets with weights of samples against NumPy in float64."""

import numpy as np
import pytest
from keras import ops

import keras_distill as kd
from keras_distill.losses import PowerWeightedTarget, SoftTarget, WeightedSoftTarget
from tests.formulas import log_softmax, softmax

LABELS = np.array([0, 4, 2, 1])
numbers = ops.convert_to_numpy


def divergence(p, q):
    return (p * np.log(p / q)).sum(-1)


def label_losses(z, labels):
    return np.array([-log_softmax(row)[y] for row, y in zip(z, labels, strict=True)])


def sample_weights(teacher, student, labels=LABELS):
    ratio = label_losses(student, labels) / (label_losses(teacher, labels) + 1e-7)
    return 1 - np.exp(-ratio)


def weighted(teacher, student, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * sample_weights(teacher, student) * divergence(p, q)


def power_weighted(teacher, student, exponent):
    values = []
    for z_t, z_s in zip(teacher, student, strict=True):
        powers = softmax(z_t) ** exponent
        total = powers.sum()
        values.append(total * divergence(powers / total, softmax(z_s)))
    return np.array(values)


@pytest.fixture
def logits():
    return 3 * np.random.default_rng(0).normal(size=(2, 4, 5))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 50.0])
def test_weighted_soft_targets_equal_numpy(temperature, logits):
    found = WeightedSoftTarget(temperature, reduction=None)(*logits, labels=LABELS)
    np.testing.assert_allclose(found, weighted(*logits, temperature), rtol=1e-4)
    rows = WeightedSoftTarget(temperature, reduction=None)
    np.testing.assert_allclose(rows(*logits, labels=np.eye(5)[LABELS]), found)


@pytest.mark.parametrize("exponent", [0.1, 0.5, 1.0, 2.0])
def test_power_weighted_targets_equal_numpy(exponent, logits):
    found = PowerWeightedTarget(exponent, reduction=None)(*logits)
    np.testing.assert_allclose(found, power_weighted(*logits, exponent), rtol=1e-4)


def test_no_gradient_flows_through_the_weight(logits, gradient, central_difference):
    teacher, student = logits
    grad = gradient(
        lambda z: WeightedSoftTarget(2.0)(teacher, z, labels=LABELS), student
    )
    fixed = sample_weights(teacher, student)
    p = softmax(teacher / 2)
    expected = central_difference(
        lambda z: (4 * fixed * divergence(p, softmax(z / 2))).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_gradient_of_powers_equals_finite_differences(
    logits, gradient, central_difference
):
    teacher, student = logits
    grad = gradient(lambda z: PowerWeightedTarget(0.2)(teacher, z), student)
    expected = central_difference(
        lambda z: power_weighted(teacher, z, 0.2).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_without_weights_they_are_soft_targets(logits):
    """A power is a temperature on the teacher's side alone."""
    teacher, student = logits
    target = kd.targets.PowerTransform(0.25)
    found = SoftTarget(1.0, target=target, reduction=None)(teacher, student)
    expected = divergence(softmax(teacher / 4), softmax(student))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    sums = (softmax(teacher) ** 0.25).sum(-1)
    found = PowerWeightedTarget(0.25, reduction=None)(teacher, student)
    np.testing.assert_allclose(found, sums * expected, rtol=1e-4)


def test_a_sure_and_right_student_has_no_weight(logits):
    teacher, _ = logits
    student = 50.0 * np.eye(5)[LABELS]
    found = numbers(WeightedSoftTarget(2.0)(teacher, student, labels=LABELS))
    assert found == pytest.approx(0.0, abs=1e-6)
    wrong = np.roll(20.0 * student, 1, axis=-1)
    found = WeightedSoftTarget(2.0, reduction=None)(teacher, wrong, labels=LABELS)
    plain = SoftTarget(2.0, reduction=None)(teacher, wrong)
    np.testing.assert_allclose(found, plain, rtol=1e-4)


def test_a_vocabulary_in_chunks_and_a_target():
    teacher, student = np.random.default_rng(1).normal(size=(2, 2, 3, 300))
    labels = np.arange(6).reshape(2, 3)
    flat = [x.reshape(6, 300) for x in (teacher, student)]
    p, q = (softmax(x / 2) for x in flat)
    weights = sample_weights(*flat, np.arange(6))
    expected = (4 * weights * divergence(p, q)).reshape(2, 3)
    loss = WeightedSoftTarget(2.0, reduction=None)
    np.testing.assert_allclose(loss(teacher, student, labels=labels), expected, 1e-4)
    target = kd.targets.TrueClass()
    loss = WeightedSoftTarget(2.0, target=target)
    assert loss.needs == ("labels",)
    assert np.isfinite(numbers(loss(teacher, student, labels=labels)))


def test_bad_exponents():
    for make in (PowerWeightedTarget, kd.targets.PowerTransform):
        with pytest.raises(ValueError, match="exponent must be above 0; got 0"):
            make(0.0)
