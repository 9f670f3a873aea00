"""Logit regression against NumPy in float64."""

import numpy as np
import pytest

from keras_distill.losses import LogitRegression, SoftTarget


def logit_regression(teacher, student, centred=False):
    if centred:
        teacher = teacher - teacher.mean(-1, keepdims=True)
        student = student - student.mean(-1, keepdims=True)
    return 0.5 * np.sum((student - teacher) ** 2, axis=-1)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(2, 6, 5)) * 3.0


@pytest.mark.parametrize("centred", [False, True])
def test_equals_numpy(logits, centred):
    loss = LogitRegression(centred=centred, reduction=None)
    np.testing.assert_allclose(
        loss(*logits), logit_regression(*logits, centred), rtol=1e-5
    )


def test_by_hand():
    """Gaps of 1, 2, 3: half of 14; centered, the gaps are -1, 0, 1: half of 2."""
    teacher, student = np.array([[[1.0, 1.0, 1.0]], [[2.0, 3.0, 4.0]]])
    np.testing.assert_allclose(LogitRegression()(teacher, student), 7.0, rtol=1e-6)
    centred = LogitRegression(centred=True)
    np.testing.assert_allclose(centred(teacher, student), 1.0, rtol=1e-6)


@pytest.mark.parametrize("centred", [False, True])
def test_gradient_equals_finite_differences(
    logits, centred, gradient, central_difference
):
    teacher, student = logits
    loss = LogitRegression(centred=centred)
    grad = gradient(lambda z: loss(teacher, z), student)
    expected = central_difference(
        lambda z: logit_regression(teacher, z, centred).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)


def test_constant_counts_unless_centred(logits):
    teacher, student = logits
    shifted = student + np.arange(1.0, 7.0)[:, None]
    centred = LogitRegression(centred=True)
    np.testing.assert_allclose(
        centred(teacher, shifted), centred(teacher, student), rtol=1e-5
    )
    plain = LogitRegression()
    assert abs(plain(teacher, shifted) - plain(teacher, student)) > 1.0


def test_is_the_limit_of_soft_targets(logits, gradient):
    """Centred and over K, the gradient of soft targets at T = 1000 to 1 %."""
    teacher, student = logits
    centred, soft = LogitRegression(centred=True), SoftTarget(1000.0)
    grad = gradient(lambda z: centred(teacher, z), student) / student.shape[-1]
    limit = gradient(lambda z: soft(teacher, z), student)
    np.testing.assert_allclose(grad, limit, atol=0.01 * np.abs(grad).max())


def test_masked_mean_is_over_the_valid_tokens():
    rng = np.random.default_rng(1)
    teacher, student = rng.normal(size=(2, 3, 4, 5))
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1]], bool)
    student[~mask] = 1e3
    expected = logit_regression(teacher, student)[mask].mean()
    value = LogitRegression()(teacher, student, mask=mask)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_recommended_weight():
    assert LogitRegression().recommended_weight == 1.0
