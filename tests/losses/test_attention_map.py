"""Attention maps against NumPy in float64."""

import numpy as np
import pytest

from keras_distill.losses import AttentionMap

VARIANTS = [(1, "sum"), (2, "sum"), (4, "sum"), (1.5, "sum"), (1, "max"), (2, "max")]


def attention(features, power, mapping):
    """Return the normalized maps, `(B, locations)`; a zero map stays zero."""
    strength = np.abs(features) ** power
    maps = strength.sum(-1) if mapping == "sum" else strength.max(-1)
    maps = maps.reshape(len(maps), -1)
    norms = np.linalg.norm(maps, axis=-1, keepdims=True)
    return np.divide(maps, norms, out=np.zeros_like(maps), where=norms > 0)


def attention_map(teacher, student, power=2, mapping="sum"):
    gap = attention(student, power, mapping) - attention(teacher, power, mapping)
    return (gap**2).mean(-1)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 3, 5, 6)), rng.normal(size=(4, 3, 5, 2))


@pytest.mark.parametrize(("power", "mapping"), VARIANTS)
def test_equals_numpy(maps, power, mapping):
    loss = AttentionMap(power, mapping=mapping, reduction=None)
    expected = attention_map(*maps, power, mapping)
    np.testing.assert_allclose(loss(*maps), expected, rtol=1e-4)


def test_by_hand():
    """Maps (9, 16) and (1, 0) normalize to (9, 16) / sqrt(337) and (1, 0)."""
    teacher = np.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    student = np.array([-1.0, 0.0]).reshape(1, 1, 2, 1)
    expected = 0.5 * ((9 / 337**0.5 - 1) ** 2 + 256 / 337)
    value = AttentionMap(2)(teacher, student)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize(("power", "mapping"), VARIANTS)
def test_gradient_equals_finite_differences(
    maps, power, mapping, gradient, central_difference
):
    teacher, student = maps
    loss = AttentionMap(power, mapping=mapping)
    grad = gradient(lambda f: loss(teacher, f), student)
    expected = central_difference(
        lambda f: attention_map(teacher, f, power, mapping).mean(), student, 1e-6
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("power", "mapping"), VARIANTS)
def test_scale_and_sign_do_not_count(maps, power, mapping):
    teacher, student = maps
    loss = AttentionMap(power, mapping=mapping, reduction=None)
    values = loss(teacher, student)
    scale = np.array([1e-4, -3.0, 1e4, 1e8]).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(loss(teacher, scale * student), values, rtol=1e-4)
    np.testing.assert_allclose(loss(scale * teacher, student), values, rtol=1e-4)
    np.testing.assert_allclose(loss(scale * student, student), 0.0, atol=1e-10)


def test_locations_count_and_channels_do_not(maps):
    teacher, student = maps
    loss = AttentionMap(reduction=None)
    np.testing.assert_allclose(
        loss(teacher, student[..., ::-1]), loss(teacher, student), rtol=1e-5
    )
    assert np.all(np.abs(loss(teacher, student[:, ::-1]) - loss(teacher, student)) > 0)


def test_a_zero_map_stays_zero(gradient):
    """Against zero, a normalized map adds its whole norm, 1, over the locations."""
    teacher = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    zero = np.zeros((2, 3, 4, 5))
    for power in (1, 2, 4):
        loss = AttentionMap(power, reduction=None)
        np.testing.assert_allclose(loss(teacher, zero), 1 / 12, rtol=1e-5)
        np.testing.assert_allclose(loss(zero, teacher), 1 / 12, rtol=1e-5)
        assert np.all(loss(zero, zero) == 0)
        grad = gradient(lambda f, loss=loss: loss(teacher, f), zero)
        assert np.all(np.isfinite(grad))


@pytest.fixture
def sequences():
    rng = np.random.default_rng(1)
    mask = np.array([[1, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 1]], bool)
    return rng.normal(size=(3, 5, 6)), rng.normal(size=(3, 5, 2)), mask


def test_positions_are_the_locations_of_a_sequence(sequences):
    teacher, student, _ = sequences
    values = AttentionMap(2, reduction=None)(teacher, student)
    np.testing.assert_allclose(values, attention_map(teacher, student), rtol=1e-4)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_masked_positions_are_zero_and_not_counted(sequences, power):
    teacher, student, mask = sequences
    expected = attention_map(
        teacher * mask[..., None], student * mask[..., None], power
    )
    expected *= mask.shape[1] / mask.sum(1)
    values = AttentionMap(power, reduction=None)(teacher, student, mask=mask)
    np.testing.assert_allclose(values, expected, rtol=1e-4)


@pytest.mark.parametrize("junk", [7.0, 1e4, 1e8])
def test_masked_positions_change_nothing(sequences, junk, gradient):
    teacher, student, mask = sequences
    loss = AttentionMap(4)
    changed = np.where(mask[..., None], student, junk)
    np.testing.assert_allclose(
        loss(teacher, changed, mask=mask), loss(teacher, student, mask=mask), rtol=1e-4
    )
    grad = gradient(lambda f: loss(teacher, f, mask=mask), student)
    assert np.all(grad[~mask] == 0)


def test_a_sequence_without_valid_positions_is_finite(sequences, gradient):
    teacher, student, mask = sequences
    mask = mask & np.array([[False], [True], [True]])
    loss = AttentionMap(reduction=None)
    values = loss(teacher, student, mask=mask)
    assert values[0] == 0.0
    grad = gradient(lambda f: loss(teacher, f, mask=mask), student)
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("power", [0.5, 0, -1])
def test_power_must_be_one_or_more(power):
    with pytest.raises(ValueError, match=f"power must be at least 1.*got {power}"):
        AttentionMap(power)


def test_mapping_is_sum_or_max():
    with pytest.raises(ValueError, match="'sum' or 'max'; got 'mean'"):
        AttentionMap(mapping="mean")


def test_vectors_have_no_locations():
    vectors = np.ones((2, 5))
    with pytest.raises(ValueError, match=r"got \(2, 5\).*or use Hint"):
        AttentionMap()(vectors, vectors)


def test_defaults_are_the_authors():
    loss = AttentionMap()
    assert (loss.power, loss.mapping, loss.recommended_weight) == (2.0, "sum", 1000.0)
