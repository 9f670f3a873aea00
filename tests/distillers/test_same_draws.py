"""What both sides' inputs pass runs once, so that both models see the same draw."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype("float32")


def noisy(x):
    """Add numbers that differ from run to run, on every backend."""
    return ops.add(x, RNG.normal(size=(5,)).astype("float32"))


class Noise:
    def add(self, x):
        return noisy(x)


def pair(**selections):
    """Return a distiller of two equal nets, which agree on equal inputs alone."""
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    teacher = keras.models.clone_model(student)
    teacher.set_weights([ops.convert_to_numpy(v) for v in student.weights])
    distiller = kd.Distiller(student, teacher, label_weight=0.0, **selections)
    distiller.compile(keras.optimizers.SGD(0.0), validate_terms=True)
    return distiller


def loss(distiller):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return distiller.train_on_batch(X, return_dict=True)["soft_target"]


@pytest.mark.parametrize("kind", ["function", "method", "layer"])
def test_one_function_draws_once(kind):
    noise, layer = Noise(), layers.GaussianNoise(1.0)
    for_student, for_teacher = {
        "function": (noisy, noisy),
        "method": (noise.add, noise.add),
        "layer": (layer, layer),
    }[kind]
    distiller = pair(student_inputs=for_student, teacher_inputs=for_teacher)
    assert abs(loss(distiller)) < 1e-6
    found = distiller.evaluate(X, return_dict=True, verbose=0)
    assert abs(found["soft_target"]) < 1e-6


def test_two_functions_draw_apart():
    distiller = pair(student_inputs=noisy, teacher_inputs=lambda x: noisy(x))
    assert loss(distiller) > 0.01


def test_two_random_layers_are_told_of_once():
    one, other = layers.GaussianNoise(1.0), layers.GaussianNoise(1.0)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pair(student_inputs=one, teacher_inputs=one).train_on_batch(X)
    assert not [w for w in found if "draw apart" in str(w.message)]
    distiller = pair(student_inputs=one, teacher_inputs=other)
    with pytest.warns(UserWarning, match="draw apart"):
        distiller.train_on_batch(X)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        distiller.train_on_batch(X)
        distiller.fit(X, verbose=0)
    assert not [w for w in found if "draw apart" in str(w.message)]


def test_one_random_layer_in_two_functions_is_told_of():
    """It draws twice; a function that both sides share runs once."""
    noise = keras.layers.GaussianNoise(1.0, seed=3)
    sides = (lambda x: noise(x, training=True)), (lambda x: 1.0 * noise(x))
    with pytest.warns(UserWarning, match=r"'gaussian_noise.*draw apart"):
        pair(student_inputs=sides[0], teacher_inputs=sides[1]).train_on_batch(X)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pair(student_inputs=sides[0], teacher_inputs=sides[0]).train_on_batch(X)
        alone = {"student_inputs": sides[0], "teacher_inputs": lambda x: 1.0 * x}
        pair(**alone).train_on_batch(X)
    assert not [w for w in found if "draw apart" in str(w.message)]
