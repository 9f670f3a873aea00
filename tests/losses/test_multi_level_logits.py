"""Predictions at several temperatures against NumPy in float64."""

import numpy as np
import pytest
from keras import ops

from keras_distill.losses import MultiLevelLogits, SoftTarget
from tests.formulas import softmax


def multi_level(teacher, student, temperatures):
    """The mean over the batch, with the products written out."""
    total = 0.0
    for t in temperatures:
        p, q = softmax(teacher / t), softmax(student / t)
        total += t**2 * (p * np.log(p / q)).sum(-1).mean()
        total += ((p @ p.T - q @ q.T) ** 2).sum() / len(p)
        total += ((p.T @ p - q.T @ q) ** 2).sum() / p.shape[-1]
    return total


@pytest.fixture
def logits():
    return 2 * np.random.default_rng(0).normal(size=(2, 6, 5))


@pytest.mark.parametrize("temperatures", [(1.0,), (4.0,), (2.0, 3.0, 4.0, 5.0, 6.0)])
def test_equals_numpy(logits, temperatures):
    found = MultiLevelLogits(temperatures)(*logits)
    np.testing.assert_allclose(found, multi_level(*logits, temperatures), rtol=1e-4)


def test_values_of_samples(logits):
    """A sample has its divergence, its row between samples, and all of the classes."""
    teacher, student = logits
    p, q = softmax(teacher / 2), softmax(student / 2)
    rows = ((p @ p.T - q @ q.T) ** 2).sum(-1)
    classes = ((p.T @ p - q.T @ q) ** 2).sum() / 5
    soft = ops.convert_to_numpy(SoftTarget(2.0, reduction=None)(teacher, student))
    found = MultiLevelLogits((2.0,), reduction=None)(teacher, student)
    np.testing.assert_allclose(found, soft + rows + classes, rtol=1e-4)


def test_gradient_equals_finite_differences(logits, gradient, central_difference):
    teacher, student = logits
    grad = gradient(lambda z: MultiLevelLogits((1.0, 3.0))(teacher, z), student)
    expected = central_difference(
        lambda z: multi_level(teacher, z, (1.0, 3.0)), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_close_predictions_do_not_cancel(logits):
    """The difference of the squared norms, about 1, would leave rounding errors."""
    teacher, _ = logits
    student = teacher + 1e-3 * np.random.default_rng(1).normal(size=teacher.shape)
    soft = ops.convert_to_numpy(SoftTarget(1.0)(teacher, student))
    sides = [np.float32(x).astype("float64") for x in (teacher, student)]
    p, q = (softmax(x) for x in sides)
    products = ((p @ p.T - q @ q.T) ** 2).sum() / 6 + (
        (p.T @ p - q.T @ q) ** 2
    ).sum() / 5
    found = ops.convert_to_numpy(MultiLevelLogits((1.0,))(teacher, student)) - soft
    np.testing.assert_allclose(found, products, rtol=1e-2)


def test_masked_tokens_are_in_no_product(logits):
    tokens = logits.reshape(2, 2, 3, 5)
    mask = np.array([[True, True, False], [True, False, False]])
    found = MultiLevelLogits((2.0,))(*tokens, mask=mask)
    kept = logits[:, mask.ravel()]
    np.testing.assert_allclose(found, multi_level(*kept, (2.0,)), rtol=1e-4)


@pytest.mark.parametrize(
    ("temperatures", "error", "words"),
    [
        ((), ValueError, "is empty"),
        (4.0, TypeError, r"sequence of numbers.*got 4\.0"),
        ((2.0, 0.0), ValueError, "above 0; got 0"),
        ((2.0, 50.0), ValueError, "at most 20 in MultiLevelLogits"),
        ((float("nan"),), ValueError, "finite"),
    ],
)
def test_bad_temperatures(temperatures, error, words):
    with pytest.raises(error, match=words):
        MultiLevelLogits(temperatures)
