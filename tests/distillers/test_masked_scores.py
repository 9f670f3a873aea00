"""Attention scores with a mask: masked keys add nothing to a loss, or it is refused."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill import Tap, losses, taps

RNG = np.random.default_rng(0)
VALID = np.arange(12) < np.array([[12], [7], [3], [9]])
TOKENS = np.where(VALID, RNG.integers(1, 9, (4, 12)), 0).astype("int32")
LABELS = np.array([0, 1, 0, 1])


@keras.saving.register_keras_serializable(package="tests")
class LosesMask(layers.Layer):
    def call(self, x):
        return 1.0 * x

    def compute_mask(self, inputs, previous_mask=None):
        return None


def net(seed, lost=False):
    keras.utils.set_random_seed(seed)
    wide = keras.initializers.RandomNormal(stddev=1.0)
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 8, wide, mask_zero=True)(tokens)
    x = LosesMask()(x) if lost else x
    attend = layers.MultiHeadAttention(
        2, 4, kernel_initializer="orthogonal", name="attention"
    )
    x = x + attend(x, x)
    x = layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(x))
    return keras.Model(tokens, x, name=f"net_{seed}")


def distiller_of(terms):
    keras.utils.clear_session()
    distiller = kd.Distiller(net(1), net(2), terms=terms, label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    return distiller


def term_of(loss, side, name="k"):
    tap = [Tap("attention", side=side)] * loss.taps
    return kd.Term(loss, tap, tap, name=name)


SOFTMAX = [
    losses.SoftTarget(1.0),
    losses.SoftTarget(20.0),
    losses.ReverseSoftTarget(1.0),
    losses.JensenShannon(20.0),
]
OF_PAIRS = [
    losses.DistanceRelation(),
    losses.AngleRelation(),
    losses.SimilarityMatrix(),
    losses.CorrelationCongruence(),
    losses.ConditionalProbability(),
    losses.HardRank(),
    losses.SoftRank(),
    losses.VotedTriplet(),
    losses.ClassTriplet(),
    losses.Verification(),
    losses.AttentionMap(),
    losses.AttentionMap(1, mapping="max"),
    losses.FullActivation(),
]
REGRESSION = losses.LogitRegression(), losses.LogitRegression(centred=True)
ACCEPTED = {"scores": [*OF_PAIRS, *REGRESSION], "log_scores": [*SOFTMAX, REGRESSION[0]]}


@pytest.mark.long
@pytest.mark.parametrize("side", ACCEPTED)
def test_the_length_of_the_padding_changes_nothing(side):
    accepted = ACCEPTED[side]
    terms = [term_of(loss, side, f"k{i}") for i, loss in enumerate(accepted)]
    distiller = distiller_of(terms)
    found = []
    for tokens in (TOKENS, np.pad(TOKENS, ((0, 0), (0, 18)))):
        logs = distiller.fit(tokens, LABELS, batch_size=4, verbose=0).history
        found.append([logs[term.name][0] for term in terms])
    for loss, short, long in zip(accepted, *found, strict=True):
        # T^2 multiplies the rounding error of float32.
        is_hot = getattr(loss, "temperature", 1.0) > 1.0
        rtol = 3e-4 if is_hot else 2e-6
        np.testing.assert_allclose(long, short, rtol=rtol, atol=1e-7)
        assert short > 1e-5


def test_every_loss_says_which_scores_it_takes():
    """A loss is listed here once its value is known not to change with the padding."""
    kinds = [getattr(losses, name) for name in dir(losses)]
    kinds = {x for x in kinds if isinstance(x, type)}
    named = {x for x in kinds if getattr(x, "masked_scores", ())}
    assert named == {type(loss) for both in ACCEPTED.values() for loss in both}
    for side, accepted in ACCEPTED.items():
        assert all(side in loss.masked_scores for loss in accepted)
    assert all(loss.masked_scores == ("scores",) for loss in OF_PAIRS)
    assert all(loss.masked_scores == ("log_scores",) for loss in SOFTMAX)
    assert losses.SoftTarget(target=kd.targets.Uniform()).masked_scores == ()


class Gap(losses.DistillationLoss):
    """A user's own, whose mean is over keys that are masked too."""

    match = kd.adapters.Match.NOTHING
    needs = ("mask", "teacher_mask")

    def call(self, teacher, student, *, mask, teacher_mask):
        gap = ops.square(teacher - student)
        if mask is not None:
            gap = gap * ops.cast(mask, gap.dtype)[..., None, None]
        return ops.mean(gap, axis=(1, 2, 3))


REFUSED = [
    (Gap(), "scores", "Use kd.losses.SoftTarget"),
    (Gap(), "log_scores", "Use kd.losses.SoftTarget"),
    (losses.OutputRegression(), "scores", "Use kd.losses.SoftTarget"),
    (losses.SingularFlow(), "scores", "Use kd.losses.SoftTarget"),
    (losses.Hint(), "scores", "Use kd.losses.SoftTarget"),
    (losses.SimilarityMatrix(), "log_scores", "Tap side='scores', use"),
    (losses.LogitRegression(centred=True), "log_scores", "Tap side='scores', use"),
    (losses.BinarySoftTarget(1.0), "log_scores", "Use kd.losses.SoftTarget"),
    (losses.PredictionCorrelation(), "log_scores", "Use kd.losses.SoftTarget"),
    (
        losses.SoftTarget(target=kd.targets.Uniform()),
        "log_scores",
        "Use kd.losses.SoftTarget",
    ),
]


@pytest.mark.parametrize(
    ("loss", "side", "fix"), REFUSED, ids=[f"{x[0].name}-{x[1]}" for x in REFUSED]
)
def test_what_counts_masked_keys_is_refused(loss, side, fix):
    distiller = distiller_of([term_of(loss, side)])
    with pytest.raises(ValueError, match=f"'k'.*would count masked keys.*{fix}"):
        distiller.fit(TOKENS, LABELS, verbose=0)


@pytest.mark.parametrize("loss", [losses.SoftTarget(), losses.BinarySoftTarget()])
def test_no_softmax_is_taken_of_probabilities(loss):
    what = "softmax" if loss.predicts == "classes" else "sigmoid"
    with pytest.raises(
        ValueError, match=f"'k'.*a {what} of.*Tap\\('attention', side='log_scores'\\)"
    ):
        term_of(loss, "scores")


def cross():
    """Queries of 4 steps without a mask, keys with one."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    queries = keras.Input((4, 8), name="queries")
    x = layers.Embedding(9, 8, mask_zero=True)(tokens)
    x = layers.MultiHeadAttention(2, 4, name="attention")(queries, x)
    return keras.Model({"tokens": tokens, "queries": queries}, x)


def test_the_mask_of_keys_alone_counts():
    x = {"tokens": TOKENS, "queries": RNG.normal(size=(4, 4, 8)).astype("float32")}
    for side in ("scores", "log_scores"):
        term = term_of(losses.SimilarityMatrix(), side)
        distiller = kd.Distiller(cross(), cross(), terms=[term], label_weight=0.0)
        distiller.compile(keras.optimizers.SGD(0.0))
        if side == "scores":
            distiller.fit(x, verbose=0)
            continue
        with pytest.raises(ValueError, match="would count masked keys"):
            distiller.fit(x, verbose=0)
    tap = Tap("attention", side="scores")
    found = taps.forward(cross(), x, [tap], training=False)[1][tap]
    assert ops.convert_to_numpy(taps.mask_of(found)).all()


def test_all_keys_count_where_none_is_masked():
    """A user's own loss takes scores without a mask."""
    images = keras.Input((6, 8))
    pair = [
        keras.Model(
            images, layers.MultiHeadAttention(2, 4, name="attention")(images, images)
        )
        for _ in range(2)
    ]
    term = term_of(losses.OutputRegression(), "scores")
    distiller = kd.Distiller(*pair, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    x = RNG.normal(size=(3, 6, 8)).astype("float32")
    tap = Tap("attention", side="scores")
    s, t = (
        ops.convert_to_numpy(taps.forward(m, x, [tap], training=False)[1][tap])
        for m in pair
    )
    found = distiller.fit(x, verbose=0).history["k"][0]
    expected = np.mean(np.square(s.astype("float64") - t))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("side", ["scores", "log_scores"])
@pytest.mark.parametrize("lost", ["student", "teacher", "none", "both"])
def test_a_mask_that_one_side_has_lost_is_warned_of(side, lost):
    loss = losses.AttentionMap() if side == "scores" else losses.SoftTarget(1.0)
    pair = net(1, lost in ("student", "both")), net(2, lost in ("teacher", "both"))
    distiller = kd.Distiller(*pair, terms=[term_of(loss, side)], label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        distiller.fit(TOKENS, verbose=0)
    found = [str(x.message) for x in caught if "leaves keys out" in str(x.message)]
    assert len(found) == (lost in ("student", "teacher"))
    assert all(f"Did the {lost} lose its mask?" in text for text in found)
