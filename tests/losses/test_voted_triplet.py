"""Voted triplets against NumPy, triplet by triplet, and with an ensemble teacher."""

import itertools

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.losses import VotedTriplet
from tests.nets import conv_pair


def voted_triplet(teachers, student, margin):
    unit = student / np.linalg.norm(student, axis=-1, keepdims=True)
    count, values = len(student), []

    def distance(f, i, j):
        return np.linalg.norm(f[i] - f[j])

    for i in range(count):
        terms = []
        for j, k in itertools.product(range(count), repeat=2):
            vote = sum(np.sign(distance(t, i, k) - distance(t, i, j)) for t in teachers)
            if vote > 0:
                gap = distance(unit, i, j) - distance(unit, i, k)
                terms.append(max(0.0, gap + margin))
        values.append(np.mean(terms))
    return np.array(values)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    teachers = [rng.normal(size=(6, size)) for size in (3, 5, 4)]
    return teachers, rng.normal(size=(6, 3)) + 0.3


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_equals_numpy(features, members, margin):
    teachers, student = features[0][:members], features[1]
    actual = VotedTriplet(margin=margin, reduction=None)(tuple(teachers), student)
    np.testing.assert_allclose(
        actual, voted_triplet(teachers, student, margin), rtol=1e-4
    )


def test_gradient_equals_finite_differences(features, gradient, central_difference):
    teachers, student = features
    weights = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 1.5])
    loss = VotedTriplet(margin=0.3)
    grad = gradient(lambda f: loss(tuple(teachers), f, weights), student)
    expected = central_difference(
        lambda f: np.mean(weights * voted_triplet(teachers, f, 0.3)), student
    )
    np.testing.assert_allclose(grad, expected, rtol=2e-3, atol=1e-5)


def test_an_ensemble_teaches_its_order():
    keras.utils.set_random_seed(0)
    student, first = conv_pair()
    teachers = [first, conv_pair()[1], conv_pair()[1]]
    members = tuple(f"{i}/stack2" for i in range(3))
    term = kd.Term(VotedTriplet(), student="stack2", teacher=members)
    distiller = kd.Distiller(
        student, kd.EnsembleTeacher(teachers), terms=[term], label_weight=0.0
    )
    distiller.compile(keras.optimizers.Adam(0.01))
    x = np.random.default_rng(0).normal(size=(96, 8, 8, 1)).astype("float32")
    history = distiller.fit(x, batch_size=32, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


def test_bad_margin():
    with pytest.raises(ValueError, match="got -1"):
        VotedTriplet(margin=-1)


@pytest.mark.parametrize("scale", [1e-22, 1e22])
def test_votes_do_not_depend_on_the_scale(features, scale):
    teachers, student = features
    found = VotedTriplet(reduction=None)(tuple(scale * t for t in teachers), student)
    np.testing.assert_allclose(
        found, voted_triplet(teachers, student, 0.1), rtol=1e-4, atol=1e-6
    )


def test_votes_in_half_precision():
    """Squares of the teachers' features overflow float16."""
    rng = np.random.default_rng(0)
    teachers = [300 * rng.normal(size=(5, size)) for size in (30, 40)]
    student = rng.normal(size=(5, 3))
    found = VotedTriplet(reduction=None, dtype="float16")(tuple(teachers), student)
    np.testing.assert_allclose(
        found, voted_triplet(teachers, student, 0.1), rtol=0.02, atol=1e-3
    )


def test_more_pairs_than_float16_counts(gradient):
    """Of 600 samples in two classes, an anchor has 299 * 300 pairs."""
    features = np.random.default_rng(0).normal(size=(600, 3))
    labels = np.arange(600) % 2
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    apart = np.linalg.norm(unit[:, None] - unit[None], axis=-1)
    expected = []
    for i, label in enumerate(labels):
        same = (labels == label) & (np.arange(600) != i)
        gaps = apart[i, same][:, None] - apart[i, labels != label][None]
        expected.append(np.maximum(0.0, gaps + 0.3).mean())
    loss = kd.losses.ClassTriplet(margin=0.3, dtype="float16")
    found = loss((), features, labels=labels)
    np.testing.assert_allclose(np.float64(found), np.mean(expected), rtol=0.02)
    grad = gradient(lambda f: loss((), f, labels=labels), features)
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0
