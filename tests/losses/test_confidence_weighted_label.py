"""Confidence-weighted labels against NumPy in float64."""

import numpy as np

from keras_distill.losses import ConfidenceWeightedLabel
from tests.formulas import softmax

LABELS = np.array([0, 4, 2, 1])


def weighted(teacher, student, labels):
    top = softmax(teacher).max(-1)
    cross_entropy = -np.log(softmax(student)[np.arange(len(labels)), labels])
    return len(labels) * top / top.sum() * cross_entropy


def test_equals_numpy():
    logits = 3 * np.random.default_rng(0).normal(size=(2, 4, 5))
    loss = ConfidenceWeightedLabel(reduction=None)
    expected = weighted(*logits, LABELS)
    np.testing.assert_allclose(loss(*logits, labels=LABELS), expected, rtol=1e-4)


def test_equal_confidence_leaves_the_cross_entropy():
    student = np.random.default_rng(0).normal(size=(4, 5))
    teacher = np.eye(5)[[3, 1, 0, 2]]
    expected = -np.log(softmax(student)[np.arange(4), LABELS]).mean()
    actual = ConfidenceWeightedLabel()(teacher, student, labels=LABELS)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_gradient_equals_finite_differences(gradient, central_difference):
    teacher, student = 2 * np.random.default_rng(1).normal(size=(2, 4, 5))
    loss = ConfidenceWeightedLabel()
    grad = gradient(lambda z: loss(teacher, z, labels=LABELS), student)
    expected = central_difference(
        lambda z: weighted(teacher, z, LABELS).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-6)


def test_a_batch_without_a_valid_token_is_0_and_has_no_gradient(gradient):
    logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    labels, mask = np.zeros((2, 3), "int32"), np.zeros((2, 3), bool)

    def value(student):
        loss = ConfidenceWeightedLabel()
        return loss(logits[::-1].copy(), student, labels=labels, mask=mask)

    assert float(value(logits)) == 0.0
    np.testing.assert_array_equal(gradient(value, logits), 0.0)
