"""Digits and an untrained teacher; only its outputs matter here."""

import keras
import numpy as np
import pytest

import keras_distill as kd


def net(name="teacher", width=24, seed=1):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(inputs)
    x = keras.layers.Dense(width, "relu", name="hidden")(keras.layers.Flatten()(x))
    outputs = keras.layers.Dense(10, name="head")(x)
    model = keras.Model(inputs, 10.0 * outputs, name=name)
    # Drawn by NumPy, so that all backends have the same weights.
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape, scale=0.3) for w in model.weights])
    return model


@pytest.fixture(scope="session")
def samples():
    return kd.data.load("digits").train[:300]


@pytest.fixture
def teacher():
    return net()


@pytest.fixture
def student():
    return net("student", 6, seed=2)
