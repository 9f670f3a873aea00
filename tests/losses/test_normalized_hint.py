"""Features normalized over the batch against NumPy in float64."""

import keras
import numpy as np
import pytest

from keras_distill.losses import NormalizedHint
from keras_distill.losses._batch_moments import batch_normalized


def normalized_hint(teacher, student, power=4.0):
    sides = [x.reshape(-1, x.shape[-1]) for x in (teacher, student)]
    t, s = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-4) for x in sides)
    return np.log((np.abs(s - t) ** power).sum() + 1e-7)


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(2, 8, 3))


@pytest.mark.parametrize("power", [1, 2.5, 4.0])
def test_equals_numpy(features, power):
    found = NormalizedHint(power=power, reduction=None)(*features)
    np.testing.assert_allclose(found, [normalized_hint(*features, power)] * 8, 1e-5)


def test_maps_count_locations_as_samples(features):
    maps = features.reshape(2, 2, 2, 2, 3)
    np.testing.assert_allclose(
        NormalizedHint()(*maps), normalized_hint(*features), rtol=1e-5
    )


def test_gradient_equals_finite_differences(features, gradient, central_difference):
    teacher, student = features
    grad = gradient(lambda f: NormalizedHint()(teacher, f), student)
    expected = central_difference(lambda f: normalized_hint(teacher, f), student)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_the_batch_normalization_of_torch(features):
    torch = pytest.importorskip("torch")
    norm = torch.nn.BatchNorm1d(3, eps=1e-4, affine=False).double()
    t, s = (norm(torch.tensor(x)) for x in features)
    expected = torch.log(((s - t).abs() ** 4).sum()).item()
    np.testing.assert_allclose(NormalizedHint()(*features), expected, rtol=1e-5)


def test_a_scale_and_a_shift_change_next_to_nothing(features):
    teacher, _ = features
    assert NormalizedHint()(teacher, 100.0 * teacher + 5.0) < -10


def test_equal_features_are_finite(features, gradient):
    teacher, _ = features
    np.testing.assert_allclose(NormalizedHint()(teacher, teacher), np.log(1e-7), 1e-3)
    grad = gradient(lambda f: NormalizedHint()(teacher, f), teacher)
    np.testing.assert_allclose(grad, 0.0, atol=1e-6)


def test_masked_steps_are_in_no_mean(features):
    sequences = features.reshape(2, 2, 4, 3)
    mask = np.array([[True, True, True, False], [True, False, True, False]])
    kept = features[:, mask.ravel()]
    found = NormalizedHint()(*sequences, mask=mask)
    np.testing.assert_allclose(found, normalized_hint(*kept), rtol=1e-5)


def test_bad_powers():
    with pytest.raises(ValueError, match=r"power must be 1 to 8; got 0\.5"):
        NormalizedHint(power=0.5)


def test_equal_features_are_finite_in_half_precision(features, gradient):
    """There 1e-7 has one digit, and its inverse none."""
    teacher, _ = features
    loss = NormalizedHint(dtype="float16")
    np.testing.assert_allclose(loss(teacher, teacher), np.log(1e-7), 1e-3)
    grad = gradient(lambda f: loss(teacher, f), teacher)
    np.testing.assert_allclose(grad, 0.0, atol=1e-6)


def test_sums_over_a_batch_do_not_overflow_half_precision(gradient):
    rng = np.random.default_rng(0)
    teacher, student = (30 * rng.normal(size=(64, 4, 4, 6)) for _ in range(2))
    loss = NormalizedHint(dtype="float16")
    found = loss(teacher, student)
    np.testing.assert_allclose(
        np.float64(found), normalized_hint(teacher, student), rtol=2e-3
    )
    assert np.isfinite(gradient(lambda f: loss(teacher, f), student)).all()


def test_moments_of_a_batch_in_half_precision():
    features = 30 * np.random.default_rng(0).normal(size=(64, 8, 3)) + 10
    found = batch_normalized(np.float16(features), None, 1e-4)
    assert np.dtype(keras.backend.standardize_dtype(found.dtype)) == np.float16
    rows = np.float64(np.float16(features)).reshape(-1, 3)
    expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-4)
    np.testing.assert_allclose(
        np.float64(found).reshape(-1, 3), expected, rtol=2e-3, atol=2e-3
    )
