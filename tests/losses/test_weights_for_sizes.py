"""The factors from recommended weights to the papers' own forms, in NumPy."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill import losses
from tests.formulas import log_softmax

SHAPES = [(2, 4, 4, 3), (3, 8, 6, 5), (4, 2, 2, 7)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape))


def unit(rows):
    rows = rows.reshape(len(rows), -1)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def value(loss, teacher, student):
    return float(loss(teacher.astype("float32"), student.astype("float32")))


@each_shape
def test_attention_at_1000_is_1000_over_the_locations_on_the_sum(shape):
    teacher, student = draw(shape)
    maps = [unit((f**2).sum(-1)) for f in (teacher, student)]
    summed = ((maps[0] - maps[1]) ** 2).sum(-1).mean()
    found = 1000 * value(losses.AttentionMap(), teacher, student)
    locations = shape[1] * shape[2]
    np.testing.assert_allclose(found, 1000 / locations * summed, rtol=1e-4)
    weight = 1000 * locations / 64
    found = weight * value(losses.AttentionMap(), teacher, student)
    np.testing.assert_allclose(found, 1000 / 64 * summed, rtol=1e-4)


@each_shape
def test_hint_with_the_number_of_features_is_half_the_papers_sum(shape):
    teacher, student = draw(shape)
    summed = 0.5 * ((teacher - student) ** 2).sum((1, 2, 3)).mean()
    weight = np.prod(shape[1:])
    found = weight * value(losses.Hint(), teacher, student)
    np.testing.assert_allclose(found, summed, rtol=1e-4)


def factors(n, samples=64):
    """Return the mean of the loss on factors of n numbers, and the paper's L1 norm."""
    teacher, student = np.random.default_rng(n).normal(size=(2, samples, n))
    paraphraser = kd.adapters.Paraphraser(1.0, trainable=False)
    found = value(losses.FactorTransfer(paraphraser), teacher, student)
    return found, np.abs(unit(teacher) - unit(student)).sum(-1).mean()


def test_factors_are_the_papers_norm_over_their_size_and_fall_with_its_root():
    small, large = factors(64), factors(1024)
    np.testing.assert_allclose(64 * small[0], small[1], rtol=1e-4)
    np.testing.assert_allclose(1024 * large[0], large[1], rtol=1e-4)
    pulls = 500 * small[0], 500 * np.sqrt(1024 / 64) * large[0]
    np.testing.assert_allclose(*pulls, rtol=0.02)


def test_the_own_teachers_hint_is_a_half_mean_of_the_papers_sum():
    """With 2 H W C l it is l times the squared distance, as in the paper."""
    keras.utils.set_random_seed(0)
    net = kd.models.conv_net((8, 8, 1), 3, filters=(4, 6))
    weight = 2 * 4 * 4 * 6 * 0.03
    distiller = kd.SelfDistiller(
        net, ["stack1"], features="stack2", hint_weight=weight, soft_weight=0.0
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss)
    x, y = np.random.default_rng(0).normal(size=(4, 8, 8, 1)), np.array([0, 1, 2, 0])
    hint = distiller.terms["hint_stack1"]
    (of_exit, *_), (deepest, *_) = hint.term.student, hint.term.teacher
    student = distiller.student
    ends = [student.get_layer(tap.path).output for tap in (of_exit, deepest)]
    tapped = keras.Model(student.inputs, [*ends, student.outputs])
    exit_map, deep_map, logits = tapped(x.astype("float32"), training=True)
    numbers = keras.ops.convert_to_numpy
    gap = np.float64(numbers(exit_map)) - np.float64(numbers(deep_map))
    assert gap.shape == (4, 4, 4, 6)
    expected = 0.03 * (gap**2).sum((1, 2, 3)).mean()
    for z in logits:
        expected -= log_softmax(np.float64(numbers(z)))[np.arange(4), y].mean()
    logs = distiller.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(float(logs["loss"]), expected, rtol=1e-4)


@each_shape
def test_flows_are_a_mean_over_the_matrix(shape):
    first, second = draw(shape), draw((*shape[:-1], 2), 1)
    flows = [
        np.einsum("bhwm,bhwn->bmn", a, b) / (shape[1] * shape[2])
        for a, b in zip(first, second, strict=True)
    ]
    summed = ((flows[0] - flows[1]) ** 2).sum((1, 2)).mean()
    pairs = [
        tuple(x.astype("float32") for x in pair)
        for pair in zip(first, second, strict=True)
    ]
    found = 2 * shape[-1] * float(losses.FlowMatrix()(*pairs))
    np.testing.assert_allclose(found, summed, rtol=1e-4)


def test_relations_of_the_batch_fall_with_its_size():
    """Doubled, a batch has each relation twice: rows of length 1 are shorter, p halves."""
    teacher, student = np.random.default_rng(0).normal(size=(2, 32, 6))
    twice = np.tile(teacher, (2, 1)), np.tile(student, (2, 1))
    for loss in (losses.SimilarityMatrix(), losses.ConditionalProbability()):
        weight = loss.recommended_weight
        pulls = weight * value(loss, teacher, student), 2 * weight * value(loss, *twice)
        np.testing.assert_allclose(*pulls, rtol=1e-3)
    for loss in (losses.CorrelationCongruence(), losses.AngleRelation()):
        np.testing.assert_allclose(
            value(loss, *twice), value(loss, teacher, student), rtol=0.1
        )


@each_shape
def test_margins_and_boundaries_are_means_of_the_papers_sums(shape):
    teacher, student = draw(shape)
    numbers = np.prod(shape[1:])
    fires = teacher > 0
    hinge = np.where(fires, np.maximum(1 - student, 0), np.maximum(1 + student, 0))
    found = numbers * value(losses.ActivationBoundary(), teacher, student)
    np.testing.assert_allclose(found, (hinge**2).sum((1, 2, 3)).mean(), rtol=1e-4)
    channels = shape[-1]
    norm = np.ones(channels, "float32"), np.full(channels, 50.0, "float32")
    # A teacher far above zero: every number is matched.
    teacher = np.abs(teacher) + 1.0
    loss = losses.MarginActivation()
    sides = teacher.astype("float32"), student.astype("float32")
    found = numbers / 1000 * float(loss(*sides, teacher_norm=norm))
    expected = ((teacher - student) ** 2).sum((1, 2, 3)).mean() / 1000
    np.testing.assert_allclose(found, expected, rtol=1e-4)
