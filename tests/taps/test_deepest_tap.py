"""A teacher runs as far as its deepest tap, on every backend, compiled or not."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.taps import Tap, forward
from tests.differentiation import compilers

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
called = []
CLASSES = 1000


@pytest.fixture(autouse=True)
def none_called():
    called.clear()


class Counted(layers.Dense):
    """Notes that it runs."""

    def call(self, inputs):
        called.append(self.name)
        return super().call(inputs)


def net(name="net"):
    """first, inner/(deep, shared, shared), last, head."""
    inner = keras.Input((5,))
    shared = Counted(5, name="shared")
    x = shared(shared(Counted(5, name="deep")(inner)))
    inner = keras.Model(inner, x, name="inner")
    inputs = keras.Input((6,))
    x = inner(Counted(5, name="first")(inputs))
    x = Counted(7, name="last")(x)
    return keras.Model(inputs, Counted(CLASSES, name="head")(x), name=name)


class OwnCode(keras.Model):
    """A subclassed net whose code catches errors of its parts."""

    def __init__(self):
        super().__init__(name="own_code")
        self.parts = [Counted(5, name=name) for name in ("first", "last")]
        self.head = Counted(CLASSES, name="head")

    def call(self, x):
        for part in self.parts:
            try:
                x = part(x)
            except Exception:
                x = 0.0 * x
        return self.head(x)


IN_ORDER = ["first", "deep", "shared", "shared", "last", "head"]
CASES = [
    (["first"], 1),
    ([Tap("first", side="input")], 0),
    (["inner/deep", "first"], 2),
    (["inner/shared"], 3),
    ([Tap("inner/shared", call=1)], 4),
    ([Tap("inner/shared", call=1, side="input"), "inner/shared"], 3),
    (["inner"], 4),
    ([Tap("head", side="input")], 5),
    (["last", "inner/deep"], 5),
    (["head"], 6),
    (["first", "logits"], 6),
]


@pytest.mark.parametrize("wanted, layers_called", CASES)
def test_layers_behind_the_deepest_tap_do_not_run(wanted, layers_called):
    model = net()
    wanted = kd.taps.as_taps(wanted)
    _, expected = forward(model, X, wanted, training=False)
    called.clear()
    found = kd.Teacher(model)(X, wanted)
    assert called == IN_ORDER[:layers_called]
    assert list(found) == list(wanted)
    for tap in wanted:
        np.testing.assert_array_equal(
            *map(ops.convert_to_numpy, (found[tap], expected[tap]))
        )
    # Nothing is left on the layers, and the next pass is a whole one.
    assert not any("call" in layer.__dict__ for layer in model._flatten_layers())
    called.clear()
    model(X)
    assert called == IN_ORDER


def test_in_a_model_with_code_of_its_own():
    model = OwnCode()
    model(X)
    expected = model.parts[0](X)
    called.clear()
    found = kd.Teacher(model)(X, [Tap("parts/0")])[Tap("parts/0")]
    assert called == ["first"]
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (found, expected)))


class Told(layers.Layer):
    """Gives what Keras says of training, which it does if it is not told otherwise."""

    def call(self, x, training=True):
        return x * float(training)


def test_keras_does_not_take_what_follows_for_a_part_of_the_pass():
    kd.Teacher(net())(X, [Tap("inner/deep")])
    np.testing.assert_array_equal(ops.convert_to_numpy(Told()(X)), X)


def test_an_error_in_a_layer_is_not_swallowed():
    model = net()
    kd.Teacher(model)(X, [Tap("last")])
    with pytest.raises(ValueError):
        kd.Teacher(model)(X[:, :3], [Tap("last")])
    with pytest.raises(ValueError, match=r"called 2 times.*names call 2"):
        kd.Teacher(model)(X, [Tap("inner/shared", call=2)])


def test_a_member_that_is_not_asked_does_not_run():
    models = [net("a"), net("b")]
    ensemble = kd.EnsembleTeacher(models)
    called.clear()
    tap = Tap("1/inner/deep")
    found = ensemble(X, [tap])[tap]
    assert called == ["first", "deep"]
    expected = kd.Teacher(models[1])(X, [Tap("inner/deep")])[Tap("inner/deep")]
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (found, expected)))


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("loss, runs_head", [("hint", False), ("soft", True)])
def test_in_fit(loss, runs_head, eagerly):
    """From the distiller's making on; the student runs to its end."""
    inputs = keras.Input((6,))
    outputs = layers.Dense(CLASSES)(layers.Dense(4, name="hidden")(inputs))
    student, teacher = keras.Model(inputs, outputs), net()
    term = {
        "hint": kd.Term(kd.losses.Hint(), "hidden", "inner/deep"),
        "soft": kd.Term(kd.losses.SoftTarget()),
    }[loss]
    called.clear()
    distiller = kd.Distiller(student, teacher, terms=[term])
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", cross_entropy, run_eagerly=eagerly)
    before = ops.convert_to_numpy(student.layers[-1].kernel)
    logs = distiller.fit(X, np.arange(8), batch_size=4, verbose=0).history
    assert ("head" in called) == runs_head and "deep" in called
    assert ("last" in called) == runs_head
    if eagerly or keras.backend.backend() == "torch":
        assert called.count("deep") >= 2
    assert np.isfinite(logs["loss"][0])
    assert np.abs(ops.convert_to_numpy(student.layers[-1].kernel) - before).max() > 0


def flops(function, x):
    """Count floating-point operations of what the backend runs."""
    backend = keras.backend.backend()
    if backend == "jax":
        lowered = compilers()["jit"](function).lower(x)
        return lowered.compile().cost_analysis()["flops"]
    if backend == "torch":
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            function(ops.convert_to_tensor(x))
        return counter.get_total_flops()
    import tensorflow as tf

    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder.float_operation()
    graph = tf.function(function).get_concrete_function(tf.constant(x)).graph
    return profiler.profile(
        graph, options={**options, "output": "none"}
    ).total_float_ops


def test_operations_of_a_pass():
    teacher = kd.Teacher(net())
    counts = [
        flops(lambda x, tap=tap: teacher(x, [tap])[tap], X)
        for tap in map(Tap, ("first", "inner/deep", "logits"))
    ]
    first, deep = 2 * 8 * 6 * 5, 2 * 8 * 5 * 5
    rest = 2 * 8 * (2 * 5 * 5 + 5 * 7 + 7 * CLASSES)
    # Biases are counted on some backends: one operation each.
    for found, expected, biases in zip(
        counts,
        (first, first + deep, first + deep + rest),
        (5, 10, 27 + CLASSES),
        strict=True,
    ):
        assert expected <= found <= expected + 8 * biases


def test_replicas_each_end_their_own_pass(two_replicas):
    import tensorflow as tf

    with two_replicas.scope():
        model = net()
    teacher, tap = kd.Teacher(model), Tap("inner/deep")
    expected = ops.convert_to_numpy(teacher(X, [tap])[tap])
    called.clear()
    data = tf.data.Dataset.from_tensor_slices(X).batch(8)
    (x,) = two_replicas.experimental_distribute_dataset(data)
    run = tf.function(
        lambda x: two_replicas.run(lambda x: teacher(x, [tap])[tap], args=(x,))
    )
    parts = two_replicas.experimental_local_results(run(x))
    assert set(called) == {"first", "deep"}
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-6)
