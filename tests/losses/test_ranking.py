"""Ranking distillation against NumPy in float64."""

import numpy as np
import pytest

from keras_distill.losses import Ranking


def ranking(teacher, student, items, decay):
    values = []
    for z_t, z_s in zip(teacher, student, strict=True):
        first = sorted(range(len(z_t)), key=lambda j: -z_t[j])[:items]
        weights = [np.exp(-r / decay) for r in range(1, items + 1)]
        logs = [-np.log(1 / (1 + np.exp(-z_s[j]))) for j in first]
        values.append(np.dot(weights, logs) / np.sum(weights))
    return np.array(values)


@pytest.fixture
def scores():
    return 3 * np.random.default_rng(0).normal(size=(2, 4, 8))


@pytest.mark.parametrize(("items", "decay"), [(1, 1.0), (3, 2.0), (8, 10.0)])
def test_equals_numpy(scores, items, decay):
    loss = Ranking(items, decay=decay, reduction=None)
    expected = ranking(*scores, items, decay)
    np.testing.assert_allclose(loss(*scores), expected, rtol=1e-4)


def test_gradient_equals_finite_differences(scores, gradient, central_difference):
    teacher, student = scores
    grad = gradient(lambda z: Ranking(3)(teacher, z), student)
    expected = central_difference(
        lambda z: ranking(teacher, z, 3, 10.0).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-6)


def test_more_items_than_classes(scores):
    np.testing.assert_allclose(
        Ranking(100)(*scores), ranking(*scores, 8, 10.0).mean(), rtol=1e-4
    )


def test_bad_arguments():
    with pytest.raises(
        ValueError, match="items must be an integer of 1 or more; got 0"
    ):
        Ranking(0)
    with pytest.raises(ValueError, match="decay must be above 0; got 0"):
        Ranking(5, decay=0)
