"""A tap's call counts the author's calls, not those of Keras's walk through the graph."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.taps import Tap
from keras_distill.taps.call_order import reordered_in

X = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")


def deep(x, count=3):
    for _ in range(count):
        x = layers.Dense(5, "tanh")(x)
    return x


def shared_first_late(name="net"):
    """Call a shared layer on the input first, then on a branch that goes on deeper.

    Keras traverses the graph from its outputs, and runs the second call first.
    """
    inputs = keras.Input((5,))
    shared = layers.Dense(5, name="shared")
    first = shared(inputs)
    second = shared(layers.Dense(5, name="between")(inputs))
    outputs = layers.Add()([deep(second), first])
    return keras.Model(inputs, outputs, name=name)


def expected(model):
    shared, between = model.get_layer("shared"), model.get_layer("between")
    return [shared(X), shared(between(X))]


def tensors(model, taps, run="forward"):
    if run == "forward":
        return kd.taps.forward(model, X, taps, training=False)[1]
    return kd.taps.up_to(model, X, taps)


def test_the_case_is_one():
    model = shared_first_late()
    assert [x.ranks for x in reordered_in(model)] == [[1, 0]]


@pytest.mark.parametrize("run", ["forward", "up_to"])
def test_calls_of_a_functional_model(run):
    model = shared_first_late()
    taps = [Tap("shared"), Tap("shared", call=1)]
    found = tensors(model, taps, run)
    for tap, value in zip(taps, expected(model), strict=True):
        np.testing.assert_allclose(found[tap], value, atol=1e-6)
    for tap in taps:
        alone = tensors(model, [tap], run)
        np.testing.assert_allclose(alone[tap], found[tap], atol=1e-6)


def test_a_model_called_twice_by_another():
    """Calls of the outer model come first, then those within."""
    inner = shared_first_late("inner")
    inputs = keras.Input((5,))
    first = inner(inputs)
    second = inner(layers.Dense(5, name="outer")(inputs))
    model = keras.Model(inputs, layers.Add()([deep(second), first]))
    assert len(reordered_in(model)) == 2
    shared, between = inner.get_layer("shared"), inner.get_layer("between")
    z = model.get_layer("outer")(X)
    values = [shared(X), shared(between(X)), shared(z), shared(between(z))]
    taps = [Tap("inner/shared", call=call) for call in range(4)]
    found = tensors(model, taps)
    for tap, value in zip(taps, values, strict=True):
        np.testing.assert_allclose(found[tap], value, atol=1e-6)


class Outer(keras.Model):
    def __init__(self):
        super().__init__(name="outer")
        self.inner = shared_first_late("inner")
        self(X)

    def call(self, inputs):
        return self.inner(ops.tanh(inputs)) + self.inner(inputs)


def test_a_functional_model_in_a_subclassed_one():
    model = Outer()
    shared, between = (model.inner.get_layer(n) for n in ("shared", "between"))
    z = ops.tanh(X)
    values = [shared(z), shared(between(z)), shared(X), shared(between(X))]
    taps = [Tap("inner/shared", call=call) for call in range(4)]
    for run in ("forward", "up_to"):
        found = tensors(model, taps, run)
        for tap, value in zip(taps, values, strict=True):
            np.testing.assert_allclose(found[tap], value, atol=1e-6)


class Twice(keras.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(5, name="dense")

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(self.dense(inputs))


def test_a_layer_of_own_code_that_is_shared():
    inputs = keras.Input((5,))
    twice = Twice(name="twice")
    first, second = twice(inputs), twice(layers.Dense(5, name="between")(inputs))
    model = keras.Model(inputs, layers.Add()([deep(second), first]))
    z = model.get_layer("between")(X)
    values = [f(start) for start in (X, z) for f in (twice.dense, twice)]
    taps = [Tap("twice/dense", call=call) for call in range(4)]
    found = tensors(model, taps)
    for tap, value in zip(taps, values, strict=True):
        np.testing.assert_allclose(found[tap], value, atol=1e-6)


def test_a_distiller_compares_the_authors_calls():
    """As in a net whose one branch is longer, so that Keras runs its calls otherwise."""
    student, teacher = shared_first_late("student"), shared_first_late("teacher")
    term = kd.Term(kd.losses.Hint(), "shared", Tap("shared", call=1), adapter=None)
    distiller = kd.Distiller(student, teacher, terms=[term])
    distiller.compile(keras.optimizers.SGD(0.0))
    history = distiller.fit(X, batch_size=4, verbose=0).history
    gap = np.square(np.array(expected(student)[0]) - np.array(expected(teacher)[1]))
    np.testing.assert_allclose(history["hint"], [gap.mean() / 2], rtol=1e-5)


def test_layers_up_to_a_call():
    model = shared_first_late()
    names = [
        {x.name for x in kd.taps.layers_up_to(model, model.inputs[0], Tap("shared", c))}
        for c in (0, 1)
    ]
    assert "between" in names[1]
    assert "shared" in names[0] & names[1]
