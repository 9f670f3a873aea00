"""Hints against NumPy in float64."""

import numpy as np
import pytest

from keras_distill.losses import Hint


def hint(teacher, student):
    """Half the mean of the squares over all axes but the batch."""
    squares = (student - teacher) ** 2
    return 0.5 * squares.reshape(len(squares), -1).mean(-1)


SHAPES = {"vector": (6, 5), "map": (3, 4, 2, 5), "volume": (2, 2, 3, 2, 4)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_numpy(shape):
    teacher, student = np.random.default_rng(0).normal(size=(2, *shape))
    values = Hint(reduction=None)(teacher, student)
    np.testing.assert_allclose(values, hint(teacher, student), rtol=1e-5)


def test_sequences_give_one_value_per_token():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    values = Hint(reduction=None)(teacher, student)
    expected = 0.5 * ((student - teacher) ** 2).mean(-1)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_by_hand():
    """Gaps of 1 and 3: half the mean of 1 and 9."""
    teacher, student = np.array([[[0.0, 1.0]], [[1.0, 4.0]]])
    np.testing.assert_allclose(Hint()(teacher, student), 2.5, rtol=1e-6)


def test_size_of_the_layer_does_not_change_the_value():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 5))
    larger = [np.tile(f, (1, 2, 2, 3)) for f in (teacher, student)]
    np.testing.assert_allclose(
        Hint()(*larger), hint(teacher, student).mean(), rtol=1e-5
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradient_equals_finite_differences(shape, gradient, central_difference):
    teacher, student = np.random.default_rng(0).normal(size=(2, *shape))
    grad = gradient(lambda f: Hint()(teacher, f), student)
    expected = central_difference(lambda f: hint(teacher, f).mean(), student)
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-7)


def test_masked_tokens_change_nothing(gradient):
    teacher, student = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1]], bool)
    student[~mask] = 1e3
    expected = (0.5 * ((student - teacher) ** 2).mean(-1))[mask].mean()
    np.testing.assert_allclose(Hint()(teacher, student, mask=mask), expected, rtol=1e-5)
    grad = gradient(lambda f: Hint()(teacher, f, mask=mask), student)
    assert np.all(grad[~mask] == 0)


def test_recommended_weight():
    assert Hint().recommended_weight == 200.0
