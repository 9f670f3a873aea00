"""Rankings of samples against NumPy in float64, order by order."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_distill.losses import HardRank, SoftRank


def scores(features, i, scale, power):
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    others = [j for j in range(len(unit)) if j != i]
    return np.array(
        [-scale * np.linalg.norm(unit[i] - unit[j]) ** power for j in others]
    )


def log_likelihood(order, s):
    """Plackett-Luce: at each position, one of the remaining items is drawn."""
    total = 0.0
    for position in range(len(order)):
        remaining = [np.exp(s[k]) for k in order[position:]]
        total += np.log(np.exp(s[order[position]]) / np.sum(remaining))
    return total


def hard_rank(teacher, student, items=None, scale=3.0, power=3.0):
    values = []
    for i in range(len(teacher)):
        t, s = (scores(f, i, scale, power) for f in (teacher, student))
        order = sorted(range(len(t)), key=lambda k: -t[k])[:items]
        values.append(-log_likelihood(order, s))
    return values


def soft_rank(teacher, student, items, scale=3.0, power=3.0):
    values = []
    for i in range(len(teacher)):
        t, s = (scores(f, i, scale, power) for f in (teacher, student))
        nearest = sorted(range(len(t)), key=lambda k: -t[k])[:items]
        orders = list(itertools.permutations(nearest))
        log_p, log_q = ([log_likelihood(o, x) for o in orders] for x in (t, s))
        assert np.sum(np.exp(log_p)) == pytest.approx(1.0)
        values.append(np.sum(np.exp(log_p) * np.subtract(log_p, log_q)))
    return values


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 7)), rng.normal(size=(6, 3)) + 0.5


CASES = [
    (HardRank, hard_rank, {}),
    (HardRank, hard_rank, {"items": 3, "scale": 1.0, "power": 2.0}),
    (SoftRank, soft_rank, {"items": 4}),
    (SoftRank, soft_rank, {"items": 5, "scale": 1.0, "power": 2.0}),
    (SoftRank, soft_rank, {"items": 2}),
]
every_case = pytest.mark.parametrize(("make", "formula", "arguments"), CASES)


@every_case
def test_equals_numpy(features, make, formula, arguments):
    actual = make(**arguments, reduction=None)(*features)
    np.testing.assert_allclose(actual, formula(*features, **arguments), rtol=1e-3)


@every_case
def test_gradient_equals_finite_differences(
    features, make, formula, arguments, gradient, central_difference
):
    teacher, student = features
    grad = gradient(lambda f: make(**arguments)(teacher, f), student)
    expected = central_difference(
        lambda f: np.mean(formula(teacher, f, **arguments)), student
    )
    np.testing.assert_allclose(grad, expected, rtol=2e-3, atol=1e-5)


@every_case
def test_replicas_rank_the_global_batch(
    features, make, formula, arguments, two_replicas
):
    teacher, student = (f.astype("float32") for f in features)
    loss = make(**arguments)

    def gradient_of(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student)
        return value, tape.gradient(value, student)

    def distribute(side):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.split(side, 2)[context.replica_id_in_sync_group]
        )

    step = tf.function(gradient_of)
    values, grads = two_replicas.run(step, tuple(map(distribute, (teacher, student))))
    value, grad = step(tf.constant(teacher), tf.constant(student))
    actual = two_replicas.reduce("SUM", values, axis=None)
    np.testing.assert_allclose(actual, value, rtol=1e-4)
    joined = np.concatenate(two_replicas.experimental_local_results(grads))
    np.testing.assert_allclose(joined, grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", [HardRank(), SoftRank()])
def test_small_batches_and_equal_points(loss, gradient):
    points = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [3.0, -1.0]])
    teacher = np.random.default_rng(1).normal(size=(4, 5))
    for count in (4, 3, 2, 1):
        grad = gradient(lambda f, n=count: loss(teacher[:n], f), points[:count])
        assert np.all(np.isfinite(grad))
        assert np.isfinite(loss(points[:count], teacher[:count]))


@every_case
@pytest.mark.parametrize("count", [2, 4, 6])
def test_a_batch_of_unknown_size(features, make, formula, arguments, count):
    loss = make(**arguments, reduction=None)
    specs = [tf.TensorSpec((None, size), "float32") for size in (7, 3)]
    step = tf.function(loss, input_signature=specs)
    sides = [tf.constant(f[:count], "float32") for f in features]
    expected = formula(*(f[:count] for f in features), **arguments)
    np.testing.assert_allclose(step(*sides), expected, rtol=1e-3, atol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="items must be 2 to 10; got 11"):
        SoftRank(items=11)
    with pytest.raises(
        ValueError, match="items must be an integer of 2 or more; got 1"
    ):
        HardRank(items=1)
    with pytest.raises(ValueError, match=r"at most 80; got scale 3\.0 and power 6"):
        HardRank(power=6)


def test_many_samples_in_half_precision(gradient):
    """Scores down to -24 have an exponential of 0 in float16."""
    teacher, student = np.random.default_rng(0).normal(size=(2, 300, 8))
    loss = HardRank(dtype="float16", reduction=None)
    sides = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (teacher, student)]
    apart = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in sides]
    expected = []
    for i in range(300):
        order = np.argsort(apart[0][i], kind="stable")[1:]
        scores = -3.0 * apart[1][i, order] ** 3
        rest = np.log(np.cumsum(np.exp(scores[::-1]))[::-1])
        expected.append((rest - scores).sum())
    found = np.float64(loss(teacher, student))
    np.testing.assert_allclose(found.mean(), np.mean(expected), rtol=0.01)
    grad = gradient(lambda f: tf.reduce_mean(loss(teacher, f)), student)
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0
