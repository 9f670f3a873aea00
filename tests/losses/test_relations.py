"""Relation losses against NumPy in float64, pair by pair and triplet by triplet."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from keras_distill import losses


def huber(gap):
    return 0.5 * gap**2 if abs(gap) < 1 else abs(gap) - 0.5


def distance_relation(teacher, student):
    def relative(f):
        pairs = list(itertools.product(range(len(f)), repeat=2))
        d = {(i, j): np.linalg.norm(f[i] - f[j]) for i, j in pairs}
        mean = np.mean([value for value in d.values() if value > 0])
        return {pair: value / mean for pair, value in d.items()}

    t, s = relative(teacher), relative(student)
    count = range(len(teacher))
    return [np.mean([huber(s[i, j] - t[i, j]) for j in count]) for i in count]


def angle_relation(teacher, student):
    def cosine(f, i, j, k):
        a, b = f[i] - f[j], f[k] - f[j]
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        return a @ b / lengths if lengths else 0.0

    count = range(len(teacher))
    return [
        np.mean(
            [
                huber(cosine(student, i, j, k) - cosine(teacher, i, j, k))
                for i, k in itertools.product(count, repeat=2)
            ]
        )
        for j in count
    ]


def similarity_matrix(teacher, student):
    def rows(f):
        gram = np.array([[a @ b for b in f] for a in f])
        return np.array([row / np.linalg.norm(row) for row in gram])

    return ((rows(student) - rows(teacher)) ** 2).mean(-1)


def correlation_congruence(teacher, student, gamma=0.4, order=2):
    def kernel(a, b):
        c = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        return sum(
            math.exp(-2 * gamma) * (2 * gamma * c) ** p / math.factorial(p)
            for p in range(order + 1)
        )

    return [
        np.mean(
            [
                (kernel(s, r) - kernel(t, u)) ** 2
                for r, u in zip(student, teacher, strict=True)
            ]
        )
        for s, t in zip(student, teacher, strict=True)
    ]


def conditional_probability(teacher, student):
    def rows(f):
        kernel = []
        for a in f:
            row = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) / 2 + 0.5 for b in f]
            kernel.append(np.array(row) / np.sum(row))
        return np.array(kernel)

    p, q = rows(teacher), rows(student)
    return (p * np.log(p / q)).mean(-1)


RELATIONS = {
    losses.DistanceRelation: distance_relation,
    losses.AngleRelation: angle_relation,
    losses.SimilarityMatrix: similarity_matrix,
    losses.CorrelationCongruence: correlation_congruence,
    losses.ConditionalProbability: conditional_probability,
}
every_relation = pytest.mark.parametrize(
    "loss", RELATIONS, ids=lambda loss: loss.__name__
)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 7)), rng.normal(size=(6, 3)) + 0.5


@every_relation
def test_equals_numpy(loss, features):
    actual = loss(reduction=None)(*features)
    np.testing.assert_allclose(actual, RELATIONS[loss](*features), rtol=1e-3)


@every_relation
def test_gradient_equals_finite_differences(
    loss, features, gradient, central_difference
):
    teacher, student = features
    weights = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 1.5])
    grad = gradient(lambda f: loss()(teacher, f, weights), student)
    expected = central_difference(
        lambda f: np.mean(weights * RELATIONS[loss](teacher, f)), student
    )
    np.testing.assert_allclose(grad, expected, rtol=2e-3, atol=1e-5)


@every_relation
def test_maps_are_vectors(loss, features):
    teacher, student = features
    maps = np.concatenate([student, student], -1)[:, :6].reshape(6, 1, 2, 3)
    actual = loss(reduction=None)(teacher, maps)
    expected = RELATIONS[loss](teacher, maps.reshape(6, 6))
    np.testing.assert_allclose(actual, expected, rtol=1e-3)


@every_relation
def test_equal_points_and_a_batch_of_one(loss, gradient):
    points = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [3.0, -1.0]])
    teacher = np.random.default_rng(1).normal(size=(4, 5))
    for batch in (points, points[:3], points[:1], 0 * points):
        same = teacher[: len(batch)]
        assert np.isfinite(loss()(same, batch))
        grad = gradient(lambda f, same=same: loss()(same, f), batch)
        assert np.all(np.isfinite(grad))
        assert np.isfinite(loss()(batch, same))


@every_relation
def test_replicas_compare_the_global_batch(loss, features, two_replicas):
    teacher, student = (f.astype("float32") for f in features)

    def gradient_of(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss()(teacher, student)
        return value, tape.gradient(value, student)

    def distribute(side):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.split(side, 2)[context.replica_id_in_sync_group]
        )

    step = tf.function(gradient_of)
    values, grads = two_replicas.run(step, tuple(map(distribute, (teacher, student))))
    value, grad = step(teacher, tf.constant(student))
    actual = two_replicas.reduce("SUM", values, axis=None)
    np.testing.assert_allclose(actual, value, rtol=1e-4)
    joined = np.concatenate(two_replicas.experimental_local_results(grads))
    np.testing.assert_allclose(joined, grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "change"),
    [
        (losses.DistanceRelation, lambda f: 3 * f + 2),
        (losses.AngleRelation, lambda f: 3 * f + 2),
        (losses.SimilarityMatrix, lambda f: 3 * f),
        (losses.CorrelationCongruence, lambda f: 3 * f),
        (losses.ConditionalProbability, lambda f: 3 * f),
    ],
)
def test_invariances_of_a_relation(loss, change, features):
    """Scale, rotation, and for distances and angles translation, of all samples."""
    teacher, _ = features
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(7, 7)))[0]
    actual = loss()(teacher, change(teacher @ rotation))
    np.testing.assert_allclose(actual, 0.0, atol=1e-6)


def test_bad_arguments_of_the_kernel():
    with pytest.raises(ValueError, match="gamma must be above 0; got 0"):
        losses.CorrelationCongruence(gamma=0)


@pytest.mark.parametrize("scale", [1e-22, 1e22])
def test_distances_do_not_depend_on_the_scale(gradient, scale):
    """The loss is the same at any scale, so the gradient is divided by it."""
    teacher, student = np.random.default_rng(0).normal(size=(2, 6, 4))
    loss = losses.DistanceRelation()
    found = loss(scale * teacher, scale * student)
    expected = np.mean(distance_relation(teacher, student))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    whole = gradient(lambda f: loss(teacher, f), student)
    scaled = gradient(lambda f: loss(scale * teacher, f), scale * student)
    np.testing.assert_allclose(scale * np.float64(scaled), whole, rtol=1e-3, atol=1e-6)


def test_distances_in_half_precision(gradient):
    """Squares of these features overflow float16."""
    rng = np.random.default_rng(0)
    teacher, student = (30 * rng.normal(size=(4, 5, 6)) for _ in range(2))
    loss = losses.DistanceRelation(dtype="float16", reduction=None)
    expected = distance_relation(teacher.reshape(4, -1), student.reshape(4, -1))
    np.testing.assert_allclose(loss(teacher, student), expected, rtol=0.03)
    grad = gradient(lambda f: tf.reduce_sum(loss(teacher, f)), student)
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0


def test_distances_of_more_pairs_than_float16_counts():
    teacher, student = np.random.default_rng(0).normal(size=(2, 300, 3))
    found = losses.DistanceRelation(dtype="float16")(teacher, student)
    expected = np.mean(distance_relation(teacher, student))
    np.testing.assert_allclose(np.float64(found), expected, rtol=0.02)


def mean_angle_relation(teacher, student):
    """Return the mean of `angle_relation`, vertex by vertex."""

    def cosines(f, j):
        edges = f - f[j]
        lengths = np.linalg.norm(edges, axis=-1, keepdims=True)
        edges = edges / np.where(lengths > 0, lengths, 1.0)
        return edges @ edges.T

    gaps = (
        np.abs(cosines(student, j) - cosines(teacher, j)) for j in range(len(student))
    )
    return np.mean([np.where(x < 1, 0.5 * x**2, x - 0.5).mean() for x in gaps])


def test_angles_of_more_triples_than_float16_counts(gradient):
    """The derivative along a direction is that of NumPy's, by a central difference."""
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 300, 3))
    loss = losses.AngleRelation(dtype="float16", reduction="sum")
    found = gradient(lambda f: loss(teacher, f), student) / 300
    direction = teacher - student
    ends = (
        mean_angle_relation(teacher, student + step * direction)
        for step in (1e-5, -1e-5)
    )
    expected = (next(ends) - next(ends)) / 2e-5
    assert (np.float64(found) * direction).sum() == pytest.approx(expected, rel=0.05)
