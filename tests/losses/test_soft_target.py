"""Soft targets against NumPy in float64, and their limits."""

import keras
import numpy as np
import pytest
from keras.optimizers.schedules import PiecewiseConstantDecay

from keras_distill.losses import SoftTarget
from tests.formulas import softmax

TEMPERATURES = [0.5, 1.0, 4.0, 20.0]


def soft_target(teacher, student, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(-1)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(2, 6, 5)) * 3.0


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_equals_numpy(logits, temperature):
    loss = SoftTarget(temperature, reduction=None)
    expected = soft_target(*logits, temperature)
    np.testing.assert_allclose(loss(*logits), expected, rtol=1e-4)


def test_two_classes_by_hand():
    """At T = 2 logits (2 log 3, 0) are (3/4, 1/4), and (0, 0) are (1/2, 1/2)."""
    teacher, student = np.array([[[2 * np.log(3.0), 0.0]], [[0.0, 0.0]]])
    expected = 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    np.testing.assert_allclose(SoftTarget(2.0)(teacher, student), expected, rtol=1e-6)


def test_is_the_divergence_from_the_student_to_the_teacher(logits):
    """The mean is taken over the teacher's prediction."""
    forward, backward = soft_target(*logits, 2.0), soft_target(*logits[::-1], 2.0)
    assert np.abs(forward - backward).min() > 1e-2
    loss = SoftTarget(2.0, reduction=None)
    np.testing.assert_allclose(loss(*logits[::-1]), backward, rtol=1e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_equals_finite_differences(
    logits, temperature, gradient, central_difference
):
    teacher, student = logits
    grad = gradient(lambda z: SoftTarget(temperature)(teacher, z), student)
    expected = central_difference(
        lambda z: soft_target(teacher, z, temperature).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_equals_that_of_the_cross_entropy(logits, temperature, gradient):
    """KL and cross-entropy differ by the entropy of the teacher, a constant."""
    teacher, student = logits
    targets = softmax(teacher / temperature).astype("float32")

    def cross_entropy(z):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        return temperature**2 * loss(targets, z / temperature)

    grad = gradient(lambda z: SoftTarget(temperature)(teacher, z), student)
    np.testing.assert_allclose(
        grad, gradient(cross_entropy, student), rtol=1e-4, atol=1e-6
    )


def test_gradient_at_high_temperature_is_that_of_centered_logits(logits, gradient):
    """(z_s - z_t) / K, z centered.

    The next term of the expansion is smaller by a factor of the order of |z| / T; with
    |z| up to 8 and T = 1000 that is 1 % of the largest gradient.
    """
    teacher, student = (z - z.mean(-1, keepdims=True) for z in logits)
    grad = gradient(lambda z: SoftTarget(1000.0, reduction="sum")(teacher, z), student)
    expected = (student - teacher) / student.shape[-1]
    np.testing.assert_allclose(grad, expected, atol=0.01 * np.abs(expected).max())


def test_value_at_high_temperature_is_half_the_squared_distance_over_the_classes(
    logits,
):
    """At T = 100 both the expansion and float32 are accurate to a few percent."""
    teacher, student = (z - z.mean(-1, keepdims=True) for z in logits)
    values = SoftTarget(100.0, reduction=None)(teacher, student)
    expected = 0.5 * np.square(student - teacher).mean(-1)
    np.testing.assert_allclose(values, expected, rtol=0.1)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_finite_at_all_temperatures(logits, temperature, size, gradient):
    teacher, student = size * logits
    loss = SoftTarget(temperature)
    assert np.isfinite(loss(teacher, student))
    assert np.all(np.isfinite(gradient(lambda z: loss(teacher, z), student)))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_confident_logits_by_hand(temperature):
    """A confident student that is wrong has a loss of T^2 * 2e4 / T."""
    teacher = np.array([[1e4, -1e4]])
    value = SoftTarget(temperature)(teacher, -teacher)
    np.testing.assert_allclose(value, temperature * 2e4, rtol=1e-6)


@pytest.mark.parametrize("amount", [0.1, 0.5])
def test_uniform_teacher_is_label_smoothing(logits, amount, gradient):
    """(1 - a) CE + a SoftTarget(T = 1) from a uniform teacher has its gradient."""
    student, labels = logits[1], np.arange(6) % 5
    uniform = np.zeros((6, 5))
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    smooth = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=amount
    )

    def distilled(z):
        return (1 - amount) * hard(labels, z) + amount * SoftTarget(1.0)(uniform, z)

    expected = gradient(lambda z: smooth(np.eye(5)[labels], z), student)
    np.testing.assert_allclose(gradient(distilled, student), expected, atol=1e-6)


def test_constant_added_to_the_logits_changes_nothing(logits):
    loss, shift = SoftTarget(3.0), np.arange(6.0)[:, None]
    value = loss(*logits)
    np.testing.assert_allclose(loss(logits[0] + shift, logits[1]), value, rtol=1e-5)
    np.testing.assert_allclose(loss(logits[0], logits[1] - shift), value, rtol=1e-5)


def test_temperature_of_the_call_replaces_the_argument(logits):
    value = SoftTarget(2.0)(*logits, temperature=5.0)
    np.testing.assert_allclose(value, soft_target(*logits, 5.0).mean(), rtol=1e-4)


def test_a_schedule_outside_of_a_distiller_is_at_its_start(logits):
    schedule = PiecewiseConstantDecay([5], [8.0, 2.0])
    value = SoftTarget(schedule)(*logits)
    np.testing.assert_allclose(value, soft_target(*logits, 8.0).mean(), rtol=1e-4)


@pytest.fixture
def sequences():
    rng = np.random.default_rng(1)
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1]], bool)
    return rng.normal(size=(2, 3, 4, 5)), mask


def test_masked_mean_is_over_the_valid_tokens(sequences):
    (teacher, student), mask = sequences
    expected = soft_target(teacher, student, 2.0)[mask].mean()
    value = SoftTarget(2.0)(teacher, student, mask=mask)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_masked_tokens_change_nothing(sequences, gradient):
    (teacher, student), mask = sequences
    changed = np.where(mask[..., None], student, 1e3)
    loss = SoftTarget(2.0)
    values = [loss(teacher, z, mask=mask) for z in (student, changed)]
    assert values[0] == values[1]
    grad = gradient(lambda z: loss(teacher, z, mask=mask), student)
    assert np.all(grad[~mask] == 0)
    assert np.all(np.abs(grad[mask]).max(-1) > 0)


def test_mask_and_weights_multiply(sequences):
    """Keras's rule: valid tokens are scaled up to the weight of all, then w scales each."""
    (teacher, student), mask = sequences
    weight = np.array([1.0, 2.0, 0.5])
    values = soft_target(teacher, student, 2.0) * weight[:, None]
    value = SoftTarget(2.0)(teacher, student, weight, mask=mask)
    np.testing.assert_allclose(value, values[mask].sum() / mask.sum(), rtol=1e-5)


def test_a_batch_without_valid_tokens_is_zero(sequences):
    (teacher, student), mask = sequences
    assert SoftTarget()(teacher, student, mask=np.zeros_like(mask)) == 0.0


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be") as error:
        SoftTarget(temperature)
    assert f"{temperature:g}" in str(error.value)


def test_schedule_must_start_above_zero():
    with pytest.raises(ValueError, match="temperature must be above 0; got 0"):
        SoftTarget(PiecewiseConstantDecay([5], [0.0, 2.0]))


def test_default_is_temperature_four(logits):
    value = SoftTarget()(*logits)
    np.testing.assert_allclose(value, soft_target(*logits, 4.0).mean(), rtol=1e-4)
    assert SoftTarget().recommended_weight == 1.0
