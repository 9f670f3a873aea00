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
