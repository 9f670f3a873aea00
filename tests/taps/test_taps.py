"""Taps reach every layer, and leave it as it was."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_distill import taps
from keras_distill.taps import Tap, tracing

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


@pytest.mark.parametrize("jit", [False, True])
def test_a_trace_tells_the_calls_of_a_shared_layer_apart(jit):
    model = Subclassed()
    model(X)
    wanted = [Tap("blocks/0"), Tap("blocks/0", call=1), Tap("pair")]

    @tf.function(jit_compile=jit)
    def run(x):
        _, found = taps.forward(model, x, wanted, training=False)
        return [found[tap] for tap in wanted]

    for traced, eager in zip(run(X), tapped(model, *wanted), strict=True):
        np.testing.assert_allclose(traced, eager, rtol=1e-4, atol=1e-6)
    assert not any("call" in layer.__dict__ for layer in model._flatten_layers())


def test_one_pass_gives_output_and_taps():
    """Layers are called once a pass, however many taps they have."""
    calls = []

    class Counted(layers.Layer):
        def call(self, inputs):
            calls.append(inputs)
            return 2.0 * inputs

    model = keras.Sequential([layers.Dense(3), Counted(name="twice")])
    model.build((None, 4))
    calls.clear()
    wanted = [Tap("twice"), Tap("twice", side="input"), Tap("logits")]
    outputs, found = taps.forward(model, X, wanted, training=False)
    assert len(calls) == 1
    np.testing.assert_array_equal(found[wanted[0]], outputs)
    np.testing.assert_array_equal(found[wanted[1]], np.array(outputs) / 2.0)


def test_the_mask_of_a_tap():
    tokens = keras.Input((4,), dtype="int32")
    embedded = layers.Embedding(9, 3, mask_zero=True, name="embedding")(tokens)
    model = keras.Model(tokens, layers.Dense(2, name="head")(embedded))
    batch = np.array([[1, 2, 0, 0], [3, 4, 5, 0]])
    wanted = [Tap("embedding"), Tap("head")]
    _, found = taps.forward(model, batch, wanted, training=False)
    for tap in wanted:
        np.testing.assert_array_equal(taps.mask_of(found[tap]), batch > 0)
    assert taps.mask_of(model(batch) * 1.0) is None


def test_as_taps():
    tap = Tap("a/b", call=1, side="input")
    assert taps.as_taps("a") == (Tap("a"),)
    assert taps.as_taps(tap) == (tap,)
    assert taps.as_taps(["a", tap]) == (Tap("a"), tap)
    assert (
        str(tap) == "a/b[call 1] (input)" and Tap.from_config(tap.get_config()) == tap
    )
    with pytest.raises(TypeError, match="a tuple of these; got 3"):
        taps.as_taps(3)


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
    with pytest.raises(
        ValueError, match=r"A tap's|call must be an integer of 0 or more; got -1"
    ):
        Tap(**{"path": "a", **arguments})


def test_layers_are_put_right_also_after_an_error():
    model = nested()
    deep = model.get_layer("inner").get_layer("deep")
    tapped(model, "inner/deep")
    assert "call" not in deep.__dict__
    with pytest.raises(ValueError):
        taps.forward(model, X[:, :3], [Tap("inner/deep")], training=False)
    assert "call" not in deep.__dict__


def test_layers_are_put_right_after_an_error_in_a_later_layer():
    class Broken(layers.Layer):
        def call(self, inputs):
            raise RuntimeError("broken")

        def compute_output_shape(self, shape):
            return shape

    first, broken = layers.Dense(3, name="first"), Broken(name="broken")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, broken(first(inputs)))
    with pytest.raises(RuntimeError, match="broken"):
        taps.forward(model, X, [Tap("first"), Tap("broken")], training=False)
    assert "call" not in first.__dict__ and "call" not in broken.__dict__
    inner = keras.Model(inputs, first.output)
    np.testing.assert_array_equal(tapped(inner, "first")[0], inner(X))


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
    spec = tracing.input_of(model)
    outputs, last = taps.outline(model, spec)
    assert outputs.shape == (None, 2) and last.name == "head"
    softmax = keras.Sequential([keras.Input((4,)), nested(), layers.Softmax()])
    assert isinstance(taps.outline(softmax, spec)[1], layers.Softmax)
    subclassed = Subclassed()
    subclassed(X)
    assert taps.outline(subclassed, spec)[1].name == "inside"
    norm = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])
    before = [np.array(v) for v in norm.variables]
    tracing.trace(lambda x: norm(x, training=True), spec)
    for old, new in zip(before, norm.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(new))


def test_outline_knows_of_outputs_that_no_layer_made():
    class OwnCode(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, inputs):
            return keras.ops.softmax(self.dense(inputs))

    model = OwnCode()
    model(X)
    outputs, last = taps.outline(model, keras.KerasTensor((None, 4)))
    assert outputs.shape == (None, 2) and last is None


def test_trace_does_not_run_eagerly_and_moves_no_state():
    state = keras.Variable(1.0)
    eager = []

    def run(x):
        eager.append(tf.executing_eagerly())
        state.assign(state + 1.0)
        return {"sum": keras.ops.sum(x["a"], axis=-1), "b": [x["b"]]}

    given = {"a": np.ones((5, 4), "float32"), "b": np.ones((5, 2), "int32")}
    found = tracing.trace(run, given)
    assert eager and not any(eager)
    assert float(state) == 1.0
    assert found["sum"].shape == (None,) and found["b"][0].shape == (None, 2)
    assert found["b"][0].dtype == "int32"


def test_trace_gives_the_error_as_it_was_raised():
    def run(x):
        raise ValueError("as it was")

    with pytest.raises(ValueError, match=r"^as it was$"):
        tracing.trace(run, keras.KerasTensor((None, 4)))
