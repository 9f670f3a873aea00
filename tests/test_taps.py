"""Taps reach every layer, and leave it as it was."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_distill import taps
from keras_distill.taps import Tap

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


def nested():
    inner_in = keras.Input((4,))
    inner = keras.Model(inner_in, layers.Dense(5, name="deep")(inner_in), name="inner")
    inputs = keras.Input((4,))
    return keras.Model(
        inputs, layers.Dense(2, name="head")(inner(inputs)), name="outer"
    )


class Subclassed(keras.Model):
    """Layers in attributes and in a list, one of them used twice."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.stem = layers.Dense(4, name="first")
        self.blocks = [layers.Dense(4), layers.Dense(4)]
        self.pair = Pair(name="pair")

    def call(self, inputs):
        x = self.stem(inputs)
        x = self.blocks[0](self.blocks[0](x))
        return self.pair(x)[0]


class Pair(layers.Layer):
    """Give two tensors, the first made by a sublayer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = layers.Dense(2, name="inside")

    def build(self, shape):
        self.inside.build(shape)

    def call(self, inputs):
        return self.inside(inputs), inputs


def tapped(model, *wanted, **kwargs):
    wanted = [tap if isinstance(tap, Tap) else Tap(tap) for tap in wanted]
    _, found = taps.forward(model, X, wanted, training=False, **kwargs)
    return [np.array(found[tap]) for tap in wanted]


def dense(layer, x):
    return x @ np.array(layer.kernel) + np.array(layer.bias)


def test_a_nested_layer():
    model = nested()
    deep = model.get_layer("inner").get_layer("deep")
    (found,) = tapped(model, "inner/deep")
    np.testing.assert_allclose(found, dense(deep, X), rtol=1e-5)


def test_attributes_lists_shared_calls_and_sides():
    model = Subclassed()
    model(X)
    first = dense(model.stem, X)
    once = dense(model.blocks[0], first)
    twice = dense(model.blocks[0], once)
    found = tapped(
        model,
        "first",
        "stem",
        "blocks/0",
        Tap("blocks/0", call=1),
        Tap("blocks/0", call=1, side="input"),
        "pair",
        "pair/inside",
        "logits",
    )
    out = dense(model.pair.inside, twice)
    expected = [first, first, once, twice, once, out, out, out]
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_a_trace_gives_what_eager_gives(jit):
    model = nested()

    @tf.function(jit_compile=jit)
    def run(x):
        return taps.forward(model, x, [Tap("inner/deep")], training=False)[1]

    traced = run(X)[Tap("inner/deep")]
    np.testing.assert_allclose(traced, tapped(model, "inner/deep")[0], rtol=1e-5)


def test_a_path_that_does_not_exist_names_the_near_ones():
    with pytest.raises(ValueError, match=r"no layer 'inner/deap'.*inner/deep"):
        tapped(nested(), "inner/deap")


def test_a_layer_that_is_not_called():
    model = Subclassed()
    model(X)
    with pytest.raises(ValueError, match="called 0 times"):
        tapped(model, "blocks/1")
    with pytest.raises(ValueError, match=r"called 2 times.*call 2"):
        tapped(model, Tap("blocks/0", call=2))


@pytest.mark.parametrize("arguments", [{"call": -1}, {"side": "inside"}, {"path": ""}])
def test_bad_taps(arguments):
    with pytest.raises(ValueError):
        Tap(**{"path": "a", **arguments})


def test_layers_are_put_right_also_after_an_error():
    model = nested()
    deep = model.get_layer("inner").get_layer("deep")
    tapped(model, "inner/deep")
    assert "call" not in deep.__dict__
    with pytest.raises(ValueError):
        taps.forward(model, X[:, :3], [Tap("inner/deep")], training=False)
    assert "call" not in deep.__dict__


def test_an_own_call_of_the_instance_stays():
    model = nested()
    deep = model.get_layer("inner").get_layer("deep")
    own = deep.call
    deep.__dict__["call"] = own
    tapped(model, "inner/deep")
    assert deep.__dict__["call"] is own


def test_two_threads_record_their_own_pass():
    both_inside = threading.Barrier(2, timeout=20)
    shared = layers.Dense(5, name="shared")
    found = {}

    class Wait(layers.Layer):
        def call(self, inputs):
            both_inside.wait()
            return inputs

        def compute_output_shape(self, shape):
            return shape

    def net():
        inputs = keras.Input((4,))
        return keras.Model(inputs, Wait()(shared(Wait()(inputs))))

    nets = [net(), net()]

    def run(place):
        tap = Tap("shared")
        _, notes = taps.forward(nets[place], X + place, [tap], training=False)
        found[place] = np.array(notes[tap])

    threads = [threading.Thread(target=run, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in (0, 1):
        expected = dense(shared, X + place)
        np.testing.assert_allclose(found[place], expected, rtol=1e-4, atol=1e-5)
    assert "call" not in shared.__dict__


def test_several_outputs():
    inputs = keras.Input((4,))
    heads = [layers.Dense(2, name="a")(inputs), layers.Dense(3, name="b")(inputs)]
    as_list = keras.Model(inputs, heads)
    as_dict = keras.Model(inputs, dict(zip("ab", heads, strict=True)))
    for model, names in ((as_list, ("1", "b")), (as_dict, ("b",))):
        for name in names:
            (found,) = tapped(model, f"logits/{name}")
            np.testing.assert_allclose(found, tapped(model, "b")[0])
        with pytest.raises(ValueError, match="several outputs"):
            tapped(model, "logits")
        with pytest.raises(ValueError, match="no output 'c'"):
            tapped(model, "logits/c")


def test_outline_finds_the_last_layer_and_computes_nothing():
    model = nested()
    spec = taps.input_of(model)
    outputs, last = taps.outline(model, spec)
    assert outputs.shape == (None, 2) and last.name == "head"
    softmax = keras.Sequential([keras.Input((4,)), nested(), layers.Softmax()])
    assert isinstance(taps.outline(softmax, spec)[1], layers.Softmax)
    subclassed = Subclassed()
    subclassed(X)
    assert taps.outline(subclassed, spec)[1].name == "inside"
    norm = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])
    before = [np.array(v) for v in norm.variables]
    taps.trace(lambda x: norm(x, training=True), spec)
    for old, new in zip(before, norm.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(new))
