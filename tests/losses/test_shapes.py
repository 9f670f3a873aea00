"""Shapes that a loss can't take are refused by name, and masks fit tensors of any rank."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill import Tap, losses

RNG = np.random.default_rng(0)
LONG = RNG.normal(size=(3, 4, 2, 5)).astype("float32")
OTHER = RNG.normal(size=LONG.shape).astype("float32")
MASK = np.arange(4) < np.array([[4], [2], [2]])


def value(loss, teacher, student, **context):
    return ops.convert_to_numpy(loss(teacher, student, **context))


@pytest.mark.parametrize(
    "make", [losses.PredictionCorrelation, losses.ConfidenceWeightedLabel]
)
def test_a_mask_of_steps_fits_several_rows_a_step(make):
    """What is masked has no effect, and is as if it were not there."""
    labels = RNG.integers(0, 5, (3, 4, 2))
    needs = {"labels": labels} if "labels" in make.needs else {}
    junk = np.where(MASK[..., None, None], OTHER, 9.0)
    each = value(make(reduction=None), LONG, OTHER, mask=MASK, **needs)
    again = value(make(reduction=None), LONG, junk, mask=MASK, **needs)
    np.testing.assert_allclose(again[MASK], each[MASK], rtol=1e-5)
    flat = {name: x[MASK] for name, x in needs.items()}
    alone = value(make(reduction=None), LONG[MASK], OTHER[MASK], **flat)
    np.testing.assert_allclose(each[MASK], alone, rtol=1e-4)


def test_the_mean_over_pixels_is_over_valid_ones():
    maps = [RNG.normal(size=(2, 3, 4, 5)).astype("float32") for _ in range(2)]
    mask = np.zeros((2, 3, 4), bool)
    mask[:, :2, :3] = True
    found = value(losses.AttentionMap(), *maps, mask=mask)
    expected = value(losses.AttentionMap(), *(x[:, :2, :3] for x in maps))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [losses.DecoupledTarget, losses.ConfidenceWeightedLabel]
)
def test_labels_that_are_not_of_the_logits_are_refused(make):
    """Where there are as many samples as steps they would fit by chance."""
    square = LONG[:, :3, 0]
    with pytest.raises(ValueError, match=r"\(3, 3, 5\).*labels of the shape \(3,\)"):
        make()(square, square, labels=np.array([0, 1, 2]))


def net(shape, attends=False):
    inputs = keras.Input(shape)
    x = layers.Dense(4, name="hidden")(inputs)
    if attends:
        x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(inputs, x)


def bind(loss, tap, shape, data):
    taps = [tap] * loss.taps
    pair = net(shape, tap != "hidden"), net(shape, tap != "hidden")
    terms = [kd.Term(loss, taps, taps, name="k")]
    kd.Distiller(*pair, terms=terms, label_weight=0.0).bind_to(np.zeros(data))


SCORES = Tap("attention", side="scores")
FACTORS = losses.FactorTransfer(kd.adapters.Paraphraser(1.0, trainable=False))
CHANNELS = [
    losses.ActivationBoundary(),
    losses.VariationalInformation(),
    losses.Contrastive(4),
    FACTORS,
]


@pytest.mark.parametrize("loss", CHANNELS, ids=lambda loss: loss.name)
def test_layers_of_a_loss_need_known_channels(loss):
    with pytest.raises(ValueError, match=r"'k'.*known number of channels"):
        bind(loss, SCORES, (None, 4), (2, 6, 4))


def test_what_is_flattened_or_fused_has_known_sizes():
    with pytest.raises(ValueError, match=r"'k'.*every size must be known"):
        bind(losses.Contrastive(4), "hidden", (None, 4), (2, 6, 4))
    with pytest.raises(ValueError, match=r"'k'.*Review fuses maps of known sizes"):
        bind(losses.Review(2), "hidden", (None, None, 4), (2, 6, 6, 4))
