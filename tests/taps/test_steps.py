"""Taps inside of layers that run another one step by step: all steps, or an error."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill import taps
from keras_distill.taps import Tap

RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(3, 5, 8, 8, 2)).astype("float32")
SEQUENCE = RNG.normal(size=(3, 5, 4)).astype("float32")


def frame_net(width=3):
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(width, 3, 2, "same", name="c"),
            layers.Flatten(),
            layers.Dense(4),
        ],
        name="frame",
    )


def video_net(width=3, steps=5):
    inputs = keras.Input((steps, 8, 8, 2))
    x = layers.TimeDistributed(frame_net(width), name="td")(inputs)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x), name="video")


def tapped(model, x, *wanted, training=False):
    wanted = [tap if isinstance(tap, Tap) else Tap(tap) for tap in wanted]
    _, found = taps.forward(model, x, wanted, training=training)
    return [ops.convert_to_numpy(found[tap]) for tap in wanted]


def of_each_frame(model, layer, x):
    inner = keras.Model(model.inputs, model.get_layer(layer).output)
    steps = [ops.convert_to_numpy(inner(x[:, i])) for i in range(x.shape[1])]
    return np.stack(steps, axis=1)


def test_a_tap_inside_time_distributed_is_all_steps():
    model = video_net()
    (found,) = tapped(model, FRAMES, "td/frame/c")
    expected = of_each_frame(model.get_layer("td").layer, "c", FRAMES)
    assert found.shape == (3, 5, 4, 4, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_a_pass_that_stops_early_runs_all_steps_too(training):
    model = video_net()
    tap = Tap("td/frame/c", side="input")
    found = taps.up_to(model, FRAMES, [tap], training=training)[tap]
    np.testing.assert_allclose(ops.convert_to_numpy(found), FRAMES)


def test_time_distributed_twice():
    """A step of the outer one is a sequence of the inner one."""
    clips = RNG.normal(size=(2, 3, 5, 4)).astype("float32")
    dense = layers.Dense(6, name="dense")
    inner = layers.TimeDistributed(dense, name="inner")
    inputs = keras.Input((3, 5, 4))
    model = keras.Model(inputs, layers.TimeDistributed(inner, name="outer")(inputs))
    (found,) = tapped(model, clips, "outer/inner/dense")
    expected = clips @ ops.convert_to_numpy(dense.kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_calls_of_a_shared_layer_inside_and_outside():
    """Call 0 is outside, call 1 and 2 are the two calls of a step."""
    shared, inputs = layers.Dense(4, name="shared"), keras.Input((4,))
    step = keras.Model(inputs, shared(shared(inputs)), name="step")
    sequence = keras.Input((5, 4))
    x = layers.TimeDistributed(step, name="td")(shared(sequence))
    model = keras.Model(sequence, x)
    kernel = ops.convert_to_numpy(shared.kernel).astype("float64")
    expected = [SEQUENCE @ kernel, SEQUENCE @ kernel @ kernel]
    expected.append(expected[-1] @ kernel)
    found = tapped(model, SEQUENCE, *(Tap("shared", call=i) for i in range(3)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_steps_have_the_mask_of_the_sequence():
    inputs = keras.Input((5, 4))
    x = layers.Masking(name="mask")(inputs)
    x = layers.TimeDistributed(layers.Dense(3, name="dense"), name="td")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    padded = SEQUENCE.copy()
    padded[0, 2:] = padded[1, 4:] = 0.0
    tap = Tap("td/dense")
    for run in (taps.up_to, lambda *a: taps.forward(*a, training=True)[1]):
        mask = taps.mask_of(run(model, padded, [tap])[tap])
        np.testing.assert_array_equal(
            ops.convert_to_numpy(mask), np.any(padded != 0, axis=-1)
        )


def test_a_distiller_compares_all_steps():
    keras.utils.set_random_seed(0)
    student, teacher = video_net(2), video_net(2)
    term = kd.Term(kd.losses.Hint(), "td/frame/c", "td/frame/c", adapter=None, name="k")
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    assert tuple(distiller.shapes["student"]["td/frame/c"])[1:] == (5, 4, 4, 2)
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.fit(FRAMES, verbose=0, batch_size=3).history["k"][0]
    maps = [
        of_each_frame(m.get_layer("td").layer, "c", FRAMES) for m in (student, teacher)
    ]
    expected = np.mean((maps[0].astype("float64") - maps[1]) ** 2) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-4)


class Looped(keras.Model):
    """A dense layer inside of a loop that the backend runs."""

    def __init__(self, loop):
        super().__init__(name="looped")
        self.dense, self.loop = layers.Dense(4, name="dense"), loop
        self.dense.build((None, 4))
        self.built = True

    def call(self, x):
        if self.loop == "map":
            return ops.vectorized_map(self.dense, x)
        if self.loop == "scan":
            carry = ops.zeros_like(x[:, 0])
            steps = ops.swapaxes(x, 0, 1)
            return ops.scan(lambda h, s: (h + self.dense(s), h), carry, steps)[0]
        return keras.remat(lambda x: self.dense(x))(x)


def is_a_python_loop(loop):
    backend = keras.backend.backend()
    return backend == "torch" and loop in ("scan", "remat")


@pytest.mark.parametrize("loop", ["map", "scan", "remat"])
def test_a_loop_of_the_backend_is_refused(loop):
    if is_a_python_loop(loop):
        pytest.skip("torch runs it step by step")
    model = Looped(loop)
    specs = keras.KerasTensor((3, 5, 4))
    if loop != "remat" or keras.backend.backend() == "jax":
        with pytest.raises(ValueError, match="inside of a loop"):
            taps.shapes_of(model, specs, [Tap("dense")])
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def run(x):
            with tf.GradientTape():
                taps.forward(model, x, [Tap("dense")], training=True)

        with pytest.raises(ValueError, match="inside of a loop"):
            run(SEQUENCE)


def recurrent(layer):
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, layer(inputs), name="net")


@pytest.mark.parametrize(
    ("layer", "path"),
    [
        (layers.LSTM(3, name="rnn"), "rnn/lstm_cell"),
        (layers.GRU(3, name="rnn", unroll=True), "rnn/cell"),
        (layers.RNN(layers.SimpleRNNCell(3, name="c"), name="rnn"), "rnn/c"),
        (layers.Bidirectional(layers.LSTM(3), name="bi"), "bi/forward_layer/cell"),
    ],
    ids=["lstm", "unrolled", "rnn", "bidirectional"],
)
def test_a_cell_of_a_recurrent_layer_is_refused(layer, path):
    model = recurrent(layer)
    with pytest.raises(ValueError, match=r"recurrent layer.*return_sequences=True"):
        taps.shapes_of(model, model.inputs[0], [Tap(path)])


def test_a_backward_layer_is_refused_where_it_gives_steps():
    model = recurrent(layers.Bidirectional(layers.GRU(3), name="bi"))
    forward, backward = tapped(model, SEQUENCE, "bi/forward_layer", "bi/backward_layer")
    both = ops.convert_to_numpy(model(SEQUENCE))
    np.testing.assert_allclose(np.c_[forward, backward], both, rtol=1e-5)
    steps = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="bi")
    model = recurrent(steps)
    (forward,) = tapped(model, SEQUENCE, "bi/forward_layer")
    both = ops.convert_to_numpy(model(SEQUENCE))
    np.testing.assert_allclose(forward, both[..., :3], rtol=1e-5)
    with pytest.raises(ValueError, match="reverse order"):
        taps.shapes_of(model, model.inputs[0], [Tap("bi/backward_layer")])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sizes are known")
def test_an_unknown_number_of_steps_is_refused():
    import tensorflow as tf

    model = video_net(steps=None)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 8, 8, 2))])
    def run(x):
        return taps.forward(model, x, [Tap("td/frame/c")], training=False)[1]

    with pytest.raises(ValueError, match="'td', a TimeDistributed over an unknown"):
        run(FRAMES)


def rematerialized(mode="full"):
    keras.utils.set_random_seed(1)
    with keras.RematScope(mode):
        inner_in = keras.Input((4,))
        deep = layers.Dense(5, "tanh", name="deep")(inner_in)
        inner = keras.Model(inner_in, layers.Dense(4)(deep), name="inner")
        inputs = keras.Input((4,))
        x = layers.Dense(3, name="head")(inner(inputs))
        return keras.Model(inputs, x, name="outer")


@pytest.mark.parametrize(
    "eager", [False, True] if keras.backend.backend() == "tensorflow" else [False]
)
@pytest.mark.parametrize("mode", ["full", "activations"])
def test_taps_inside_a_remat_scope_train(mode, eager):
    """The gradient through taps of rematerialized layers is that of plain ones."""
    x = SEQUENCE[:, 0]
    found = []
    for student in (rematerialized(mode), rematerialized(None)):
        terms = [
            kd.Term(kd.losses.Hint(), path, path, adapter=None, name=path[-4:])
            for path in ("inner/deep", "inner", "head")
        ]
        keras.utils.set_random_seed(2)
        teacher = keras.models.clone_model(rematerialized(None))
        distiller = kd.Distiller(student, teacher, terms=terms, label_weight=0.0)
        distiller.compile(keras.optimizers.SGD(0.05), run_eagerly=eager)
        logs = distiller.fit(x, verbose=0, batch_size=3, epochs=2).history
        found.append([*logs["deep"], *logs["nner"], *logs["head"]])
        found[-1] += [np.ravel(ops.convert_to_numpy(v)) for v in student.variables]
    assert found[0][0] > 0 and found[0][1] != found[0][0]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
