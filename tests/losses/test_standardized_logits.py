"""Losses on standardized logits against NumPy in float64."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_distill as kd
from keras_distill import losses
from keras_distill.losses import StandardizedLogits
from tests.formulas import softmax
from tests.losses.test_decoupled_target import decoupled

LABELS = np.array([0, 4, 2, 1])
numbers = ops.convert_to_numpy


def standardized(z):
    """The source's: `std` with K - 1 degrees of freedom."""
    return (z - z.mean(-1, keepdims=True)) / (z.std(-1, ddof=1, keepdims=True) + 1e-7)


def divergences(teacher, student, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    m = (p + q) / 2
    kl = {
        losses.SoftTarget: p * np.log(p / q),
        losses.ReverseSoftTarget: q * np.log(q / p),
        losses.JensenShannon: (p * np.log(p / m) + q * np.log(q / m)) / 2,
    }
    return {kind: temperature**2 * terms.sum(-1) for kind, terms in kl.items()}


@pytest.fixture
def logits():
    return 3 * np.random.default_rng(0).normal(size=(2, 4, 5)) + 2


@pytest.mark.parametrize("temperature", [2.0, 50.0])
@pytest.mark.parametrize(
    "kind", [losses.SoftTarget, losses.ReverseSoftTarget, losses.JensenShannon]
)
def test_divergences_equal_numpy(kind, temperature, logits):
    loss = StandardizedLogits(kind(temperature, reduction=None))
    expected = divergences(*map(standardized, logits), temperature)[kind]
    np.testing.assert_allclose(loss(*logits), expected, rtol=1e-4)


def test_decoupled_targets_equal_numpy(logits):
    loss = StandardizedLogits(losses.DecoupledTarget(2.0, beta=3.0), reduction=None)
    expected = decoupled(*map(standardized, logits), LABELS, 2.0, 1.0, 3.0)
    np.testing.assert_allclose(loss(*logits, labels=LABELS), expected, rtol=1e-4)


def test_gradient_equals_finite_differences(logits, gradient, central_difference):
    teacher, student = logits
    loss = StandardizedLogits(losses.SoftTarget(2.0))
    grad = gradient(lambda z: loss(teacher, z), student)
    expected = central_difference(
        lambda z: divergences(standardized(teacher), standardized(z), 2.0)[
            losses.SoftTarget
        ].mean(),
        student,
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_a_scale_and_a_shift_change_nothing(logits):
    teacher, _ = logits
    loss = StandardizedLogits(losses.SoftTarget(2.0))
    assert numbers(loss(teacher, 0.1 * teacher - 30.0)) == pytest.approx(0, abs=1e-6)
    assert numbers(losses.SoftTarget(2.0)(teacher, 0.1 * teacher)) > 0.1


def test_torch_divides_by_one_less(logits):
    torch = pytest.importorskip("torch")
    z = torch.tensor(logits[0])
    theirs = (z - z.mean(-1, keepdim=True)) / (1e-7 + z.std(-1, keepdim=True))
    np.testing.assert_allclose(standardized(logits[0]), theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 3.3, 1e4])
def test_equal_logits_are_zeros_with_a_gradient_of_their_size(constant, gradient):
    """Divided by the 1e-7, the gradient of a new layer of zeros would be 1e7."""
    teacher = np.array([[1.0, 2.0, 4.0]])
    loss = StandardizedLogits(losses.SoftTarget(2.0))
    flat = np.full((1, 3), constant)
    expected = divergences(standardized(teacher), 0.0 * flat, 2.0)[losses.SoftTarget]
    np.testing.assert_allclose(loss(teacher, flat), expected[0], rtol=1e-4)
    assert 0.01 < np.abs(gradient(lambda z: loss(teacher, z), flat)).max() < 10


def test_tiny_and_huge_logits_have_a_deviation(logits):
    teacher, student = logits
    loss = StandardizedLogits(losses.SoftTarget(2.0))
    expected = numbers(loss(teacher, student))
    huge = numbers(loss(teacher, 1e30 * student))
    np.testing.assert_allclose(huge, expected, rtol=1e-4)


def test_a_target_and_a_vocabulary_in_chunks():
    z = np.random.default_rng(1).normal(size=(2, 2, 3, 300))
    soft = losses.SoftTarget(2.0, reduction=None)
    found = StandardizedLogits(soft)(*z)
    expected = divergences(*map(standardized, z), 2.0)[losses.SoftTarget]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    uniform = losses.SoftTarget(2.0, target=kd.targets.Uniform(), reduction=None)
    found = StandardizedLogits(uniform)(*z)
    q = softmax(standardized(z[1]) / 2)
    np.testing.assert_allclose(
        found, 4 * -np.log(300 * q).mean(-1), rtol=1e-4, atol=1e-5
    )


def test_it_takes_the_losss_settings():
    decay = keras.optimizers.schedules.ExponentialDecay(8.0, 10, 0.5)
    soft = losses.SoftTarget(decay, name="soft", reduction="sum", dtype="float16")
    loss = StandardizedLogits(soft)
    assert (loss.name, loss.reduction) == ("standardized_soft", "sum")
    assert (loss.dtype, loss.temperature) == ("float16", decay)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert float(again.temperature(10)) == 4.0
    needy = StandardizedLogits(losses.DecoupledTarget())
    assert needy.needs == ("labels",) and needy.needs_one_class


def test_a_distiller_trains_with_it():
    teacher, student = (
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]) for _ in range(2)
    )
    decay = keras.optimizers.schedules.ExponentialDecay(4.0, 1, 0.5)
    loss = StandardizedLogits(losses.SoftTarget(decay))
    distiller = kd.Distiller(student, teacher, terms=[kd.Term(loss)], label_weight=0.1)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    history = distiller.fit(x, np.arange(8) % 4, batch_size=8, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        ("soft_target", TypeError, "DistillationLoss.*got 'soft_target'"),
        (keras.losses.KLDivergence(), TypeError, "DistillationLoss"),
        (losses.BinarySoftTarget(), ValueError, "BinarySoftTarget compares other"),
        (losses.Hint(), ValueError, "one softmax, and Hint"),
        (losses.LogitRegression(), ValueError, "centred=True"),
    ],
)
def test_other_losses_are_refused(loss, error, words):
    with pytest.raises(error, match=words):
        StandardizedLogits(loss)
