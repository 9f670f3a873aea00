"""A small pair of nets and data that a linear rule labels."""

import keras
import numpy as np
import pytest

import keras_distill as kd


def conv_pair(student_filters=4, teacher_filters=6, norm=True, name="student"):
    """Build nets with `stack1` and `stack2`; without normalisation replicas agree."""

    def net(filters, name):
        inputs = keras.Input((8, 8, 1))
        x = inputs
        for i in (1, 2):
            x = keras.layers.Conv2D(filters * i, 3, i, "same", name=f"conv{i}")(x)
            if norm:
                x = keras.layers.BatchNormalization(name=f"norm{i}")(x)
            x = keras.layers.ReLU(name=f"stack{i}")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name=name)

    return net(student_filters, name), net(teacher_filters, "teacher")


@pytest.fixture
def nets():
    keras.utils.set_random_seed(1)
    return conv_pair()


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype("float32")
    return x, rng.integers(0, 3, 32).astype("int32")


@pytest.fixture
def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def three_taps():
    """Give the terms of a distiller with three tapped layers beside the logits."""
    return [
        kd.Term(kd.losses.SoftTarget(4.0), weight=0.9),
        kd.Term(kd.losses.Hint(), student="stack1", teacher="stack2", weight=1.0),
        kd.Term(kd.losses.AttentionMap(), "stack2", "stack2", weight=10.0),
        kd.Term(
            kd.losses.FlowMatrix(),
            student=("stack1", "stack2"),
            teacher=("stack1", "stack2"),
            weight=1.0,
        ),
    ]
