"""Features normalized over the batch against NumPy in float64."""

import numpy as np
import pytest

from keras_distill.losses import NormalizedHint


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
