"""Sample weights of data without labels weigh the terms, in evaluations too."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from tests.formulas import softmax

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 8)).astype("float32")
HELD = RNG.normal(size=(7, 8)).astype("float32")
WEIGHTS = np.linspace(0.0, 2.0, 7).astype("float32")


def net(seed=0, name=None):
    keras.utils.set_random_seed(seed)
    hidden = layers.Dense(5, "tanh", name="hidden")
    return keras.Sequential([keras.Input((8,)), hidden, layers.Dense(4)], name=name)


def mean(teacher, student, temperature, x=HELD, weights=WEIGHTS):
    t, s = (np.float64(m.predict(x, verbose=0)) for m in (teacher, student))
    p, q = softmax(t, temperature), softmax(s, temperature)
    return (weights * temperature**2 * (p * np.log(p / q)).sum(-1)).mean()


def one():
    student, teacher = net(), net(1)
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    return distiller, lambda: {"soft_target": mean(teacher, student, 4.0)}


def mutual():
    a, b = net(name="a"), net(1, name="b")
    distiller = kd.MutualDistiller([a, b], label_weight=0.0)
    expected = {"a_soft_target_from_b": (b, a), "b_soft_target_from_a": (a, b)}
    return distiller, lambda: {k: mean(*m, 1.0) for k, m in expected.items()}


@pytest.mark.parametrize("kind", [one, mutual])
def test_of_an_evaluation(kind):
    distiller, expected = kind()
    distiller.compile(keras.optimizers.SGD(0.0), validate_terms=True)
    found = [
        distiller.evaluate(
            HELD, sample_weight=WEIGHTS, batch_size=3, return_dict=True, verbose=0
        ),
        distiller.test_on_batch(HELD, sample_weight=WEIGHTS, return_dict=True),
    ]
    for logs in found:
        for name, value in expected().items():
            assert logs[name] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("kind", [one, mutual])
def test_of_validation_data(kind):
    distiller, expected = kind()
    distiller.compile(keras.optimizers.SGD(0.1), validate_terms=True)
    data = {"validation_data": (HELD, None, WEIGHTS), "validation_batch_size": 3}
    logs = distiller.fit(X, batch_size=5, epochs=2, verbose=0, **data).history
    for name, value in expected().items():
        assert logs[f"val_{name}"][-1] == pytest.approx(value, rel=1e-5)


def test_of_a_batch():
    student, teacher = net(), net(1)
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    logs = distiller.train_on_batch(HELD, sample_weight=WEIGHTS, return_dict=True)
    assert logs["soft_target"] == pytest.approx(mean(teacher, student, 4.0), rel=1e-5)
