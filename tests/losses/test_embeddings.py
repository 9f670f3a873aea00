"""The companions of the ranking losses against NumPy, by pairs and triplets."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
from keras_distill.losses import ClassTriplet, Verification

LABELS = np.array([0, 1, 0, 2, 1, 0])


def unit(f):
    return f / np.linalg.norm(f, axis=-1, keepdims=True)


def class_triplet(student, labels, margin=0.3):
    f, count, values = unit(student), len(student), []
    for i in range(count):
        terms = [
            max(0, np.linalg.norm(f[i] - f[j]) - np.linalg.norm(f[i] - f[k]) + margin)
            for j, k in itertools.product(range(count), repeat=2)
            if j != i and labels[j] == labels[i] != labels[k]
        ]
        values.append(np.mean(terms) if terms else 0.0)
    return np.array(values)


def verification(student, labels, margin=1.0):
    f, values = unit(student), []
    for i in range(len(f)):
        terms = []
        for j in range(len(f)):
            d = np.linalg.norm(f[i] - f[j])
            if j != i:
                same = labels[i] == labels[j]
                terms.append(d**2 if same else max(0, margin - d) ** 2)
        values.append(np.mean(terms))
    return np.array(values)


CASES = [(ClassTriplet, class_triplet, 0.3), (Verification, verification, 1.0)]
every_case = pytest.mark.parametrize(("make", "formula", "margin"), CASES)


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(6, 3)) + 0.3


@every_case
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_equals_numpy(features, make, formula, margin, factor):
    loss = make(margin=factor * margin, reduction=None)
    expected = formula(features, LABELS, factor * margin)
    for labels in (LABELS, LABELS[:, None], np.eye(3)[LABELS]):
        actual = loss(features, features, labels=labels)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@every_case
def test_gradient_equals_finite_differences(
    features, make, formula, margin, gradient, central_difference
):
    grad = gradient(lambda f: make()(features, f, labels=LABELS), features)
    expected = central_difference(lambda f: formula(f, LABELS).mean(), features)
    np.testing.assert_allclose(grad, expected, rtol=2e-3, atol=1e-5)


@pytest.mark.long
@every_case
def test_replicas_pair_the_global_batch(features, make, formula, margin, two_replicas):
    features, loss = features.astype("float32"), make()

    def distribute(side):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.split(side, 2)[context.replica_id_in_sync_group]
        )

    step = tf.function(lambda f, labels: loss(f, f, labels=labels))
    values = two_replicas.run(step, tuple(map(distribute, (features, LABELS))))
    actual = two_replicas.reduce("SUM", values, axis=None)
    np.testing.assert_allclose(actual, formula(features, LABELS).mean(), rtol=1e-4)


@every_case
def test_classes_are_separated(make, formula, margin):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(192, 6)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int32")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(32, "relu", name="hidden")(inputs)
    embedding = keras.layers.Dense(4, name="embedding")(hidden)
    student = keras.Model(inputs, keras.layers.Dense(2)(embedding), name="student")
    teacher = keras.models.clone_model(student)
    embed = keras.Model(inputs, embedding)

    def gap():
        f = unit(np.array(embed(x[128:]), "float64"))
        near = np.linalg.norm(f[:, None] - f[None], axis=-1)
        same = y[128:, None] == y[None, 128:]
        return near[~same].mean() - near[same].mean()

    before = gap()
    term = kd.Term(make(), "embedding")
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.02))
    distiller.fit(x[:128], y[:128], batch_size=32, epochs=20, verbose=0)
    assert gap() > before + 0.2


@every_case
def test_one_class_and_a_batch_of_one(features, make, formula, margin):
    for count in (1, 3):
        labels = np.zeros(count, int)
        actual = make()(features[:count], features[:count], labels=labels)
        expected = verification(features[:3], labels).mean() if count > 1 else 0.0
        expected = expected if make is Verification else 0.0
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


@every_case
def test_bad_margins(make, formula, margin):
    with pytest.raises(ValueError, match="got -1"):
        make(margin=-1)
