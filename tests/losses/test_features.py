"""Losses on single layers against NumPy in float64."""

import itertools

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill import losses


def full_activation(teacher, student):
    values = []
    for t, s in zip(teacher, student, strict=True):
        values.append(((s / np.linalg.norm(s) - t / np.linalg.norm(t)) ** 2).sum())
    return values


def neuron_selectivity(teacher, student):
    values = []
    for t, s in zip(teacher, student, strict=True):
        sides = []
        for f in (t, s):
            channels = [f[..., c].ravel() for c in range(f.shape[-1])]
            sides.append([c / np.linalg.norm(c) for c in channels])

        def kernel(first, second):
            pairs = itertools.product(first, second)
            return np.mean([np.dot(a, b) ** 2 for a, b in pairs])

        t, s = sides
        values.append(kernel(t, t) + kernel(s, s) - 2 * kernel(s, t))
    return values


def activation_boundary(teacher, student, margin=1.0):
    short = np.where(
        teacher > 0, np.maximum(margin - student, 0), np.maximum(margin + student, 0)
    )
    return (short**2).reshape(len(short), -1).mean(-1)


def cosine_distance(teacher, student):
    values = []
    for t, s in zip(teacher, student, strict=True):
        pairs = zip(t.reshape(-1, t.shape[-1]), s.reshape(-1, s.shape[-1]), strict=True)
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
        values.append(1 - np.mean(cosines))
    return values


def channel_correlation(teacher, student):
    values = []
    for sides in zip(teacher, student, strict=True):
        grams = []
        for f in sides:
            channels = f.reshape(-1, f.shape[-1]).T
            rows = [[a @ b for b in channels] for a in channels]
            grams.append([row / np.linalg.norm(row) for row in rows])
        values.append(((grams[0] - np.array(grams[1])) ** 2).sum() / len(grams[0]))
    return values


LOSSES = {
    losses.ChannelCorrelation: channel_correlation,
    losses.CosineDistance: cosine_distance,
    losses.FullActivation: full_activation,
    losses.NeuronSelectivity: neuron_selectivity,
    losses.ActivationBoundary: activation_boundary,
}
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


@pytest.fixture
def maps():
    return np.random.default_rng(0).normal(size=(2, 3, 2, 3, 4))


@every_loss
def test_equals_numpy(loss, maps):
    actual = loss(reduction=None)(*maps)
    np.testing.assert_allclose(actual, LOSSES[loss](*maps), rtol=1e-4)


@every_loss
def test_gradient_equals_finite_differences(loss, maps, gradient, central_difference):
    teacher, student = maps
    grad = gradient(lambda f: loss()(teacher, f), student)
    expected = central_difference(lambda f: np.mean(LOSSES[loss](teacher, f)), student)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_selectivity_takes_any_number_and_order_of_channels(maps):
    teacher, student = maps
    few = student[..., :3]
    actual = losses.NeuronSelectivity(reduction=None)(teacher, few)
    np.testing.assert_allclose(actual, neuron_selectivity(teacher, few), rtol=1e-4)
    shuffled = losses.NeuronSelectivity()(teacher, teacher[..., [2, 0, 3, 1]])
    np.testing.assert_allclose(shuffled, 0.0, atol=1e-6)
    with pytest.raises(ValueError, match=r"got \(3, 4\)"):
        losses.NeuronSelectivity()(teacher[:, 0, 0], teacher[:, 0, 0])


def test_boundary_ignores_values_past_the_margin(gradient):
    teacher = np.array([[2.0, 0.1, -3.0, -0.1]])
    student = np.array([[1.5, 0.5, -0.5, 0.5]])
    # Short of the margin by 0, 0.5, 0.5 and 1.5.
    loss = losses.ActivationBoundary()
    np.testing.assert_allclose(loss(teacher, student), (0.25 + 0.25 + 2.25) / 4)
    grad = gradient(lambda f: loss(teacher, f), student)
    np.testing.assert_allclose(grad, [[0.0, -0.25, 0.25, 0.75]], rtol=1e-6)
    with pytest.raises(ValueError, match="got 0"):
        losses.ActivationBoundary(margin=0)


class TestVariationalInformation:
    def test_equals_the_gaussian_density(self):
        rng = np.random.default_rng(0)
        teacher, mean = rng.normal(size=(2, 3, 2, 2, 4))
        variance = rng.uniform(0.1, 4.0, size=teacher.shape)
        # -log N(t; m, v) = 1/2 log(2 pi v) + (t - m)^2 / 2v
        density = np.exp(-((teacher - mean) ** 2) / (2 * variance))
        density /= np.sqrt(2 * np.pi * variance)
        expected = -np.log(density) - 0.5 * np.log(2 * np.pi)
        actual = losses.VariationalInformation(reduction=None)(
            teacher, np.concatenate([mean, variance], -1)
        )
        np.testing.assert_allclose(actual, expected.mean((1, 2, 3)), rtol=1e-4)

    def test_the_best_variance_is_the_mean_square(self, gradient):
        """d/dv of the mean of log v + r^2 / v is zero at v = mean r^2."""
        rest = np.array([[1.0], [2.0], [3.0]])
        loss = losses.VariationalInformation()

        def value(variance):
            mean = keras.ops.zeros((3, 1))
            both = keras.ops.concatenate([mean, mean + variance], -1)
            return loss(rest, both)

        assert abs(gradient(value, np.array(14 / 3))) < 1e-6
        assert gradient(value, np.array(4.0)) < 0 < gradient(value, np.array(5.5))

    def test_an_adapter_without_variance_is_refused(self):
        with pytest.raises(ValueError, match="the adapter returns 4"):
            losses.VariationalInformation()(np.ones((2, 4)), np.ones((2, 4)))


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (losses.ActivationBoundary, kd.adapters.Connector),
        (losses.VariationalInformation, kd.adapters.GaussianRegressor),
    ],
)
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((None, 8, 8, 4), (None, 4, 4, 6)),
        ((None, 5), (None, 6)),
        ((None, 7, 5), (None, 7, 6)),
    ],
)
def test_the_inferred_adapter_is_that_of_the_method(loss, kind, student, teacher):
    adapter, teacher_adapter = loss().adapters(student, teacher)
    assert teacher_adapter is None
    adapter.build(student)
    last = adapter.layers[-1] if isinstance(adapter, keras.Sequential) else adapter
    assert isinstance(last, kind)
    output = adapter(np.ones((2, *student[1:]), "float32"), training=True)
    assert tuple(output.shape[1:]) == adapter.compute_output_shape(student)[1:]
    assert output.shape[1:-1] == teacher[1:-1]
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(last)
    )
    assert again.channels == 6


def test_cosines_of_tokens_and_of_zeros(maps):
    teacher, student = (x.reshape(3, 6, 4) for x in maps)
    teacher[0, 0] = student[0, 0] = teacher[1, 0] = 0.0
    values = keras.ops.convert_to_numpy(
        losses.CosineDistance(reduction=None)(teacher, student)
    )
    assert values.shape == (3, 6)
    assert values[0, 0] == 0.0
    assert values[1, 0] == pytest.approx(0.5)
    expected = cosine_distance(teacher[2:, 1:2], student[2:, 1:2])
    np.testing.assert_allclose(values[2, 1], expected[0], rtol=1e-4)
    stretched = losses.CosineDistance()(teacher, 1e3 * teacher)
    np.testing.assert_allclose(stretched, 0.0, atol=1e-6)


def test_channels_correlate_over_maps_of_any_size(maps):
    teacher, student = maps
    few = student[:, :1]
    found = losses.ChannelCorrelation(reduction=None)(teacher, few)
    np.testing.assert_allclose(found, channel_correlation(teacher, few), rtol=1e-4)
    moved = losses.ChannelCorrelation()(teacher, 5.0 * teacher[:, ::-1])
    np.testing.assert_allclose(moved, 0.0, atol=1e-6)
    with pytest.raises(ValueError, match=r"ChannelCorrelation.*got \(3, 4\)"):
        losses.ChannelCorrelation()(teacher[:, 0, 0], teacher[:, 0, 0])
    adapter, none = losses.ChannelCorrelation().adapters(
        (None, 8, 8, 3), (None, 4, 4, 6)
    )
    assert none is None
    assert adapter.compute_output_shape((None, 8, 8, 3)) == (None, 8, 8, 6)
