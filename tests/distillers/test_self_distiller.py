"""Self-distillation against its closed form, its exits, and bad input."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import points
from tests.nets import conv_pair

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATE, SHARE, TEMPERATURE = 0.2, 0.3, 3.0


def net():
    x = keras.Input((4,))
    hidden = layers.Dense(5, use_bias=False, name="hidden")(x)
    return keras.Model(x, layers.Dense(3, use_bias=False, name="logits")(hidden))


def compiled(distiller, **arguments):
    distiller.compile(keras.optimizers.SGD(RATE), CROSS_ENTROPY, **arguments)
    return distiller


@pytest.mark.parametrize(
    "how", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str
)
def test_a_step_is_that_of_the_formula(how):
    x, y = points()
    distiller = kd.SelfDistiller(net(), ["hidden"], soft_weight=SHARE)
    head = distiller.student.get_layer("hidden_exit")
    a, b = (
        np.array(distiller.net.value.get_layer(n).kernel, "float64")
        for n in ("hidden", "logits")
    )
    e = np.array(head.kernel, "float64")
    h = x @ a
    deep, early, labels = h @ b, h @ e, np.eye(3)[y]
    by_deep = (softmax(deep) - labels) / len(x)
    gap = softmax(early, TEMPERATURE) - softmax(deep, TEMPERATURE)
    by_early = (1 - SHARE) * (softmax(early) - labels) + SHARE * TEMPERATURE * gap
    by_early /= len(x)
    by_h = by_deep @ b.T + by_early @ e.T
    logs = compiled(distiller, **how).fit(x, y, batch_size=12, verbose=0, shuffle=False)
    for layer, value, slope in (
        (distiller.net.value.get_layer("hidden"), a, x.T @ by_h),
        (distiller.net.value.get_layer("logits"), b, h.T @ by_deep),
        (head, e, h.T @ by_early),
    ):
        np.testing.assert_allclose(layer.kernel, value - RATE * slope, atol=1e-6)
    surprise = [-np.log(softmax(z)[np.arange(12), y]).mean() for z in (early, deep)]
    expected = (1 - SHARE) * surprise[0] + surprise[1]
    assert logs.history["label_loss"][0] == pytest.approx(expected, rel=1e-5)


def exits(**arguments):
    student = conv_pair(norm=False)[0]
    return kd.SelfDistiller(student, ["stack1"], features="stack2", **arguments)


def test_hints_bring_the_exits_features_to_the_deepest(images):
    distiller = compiled(exits(hint_weight=1.0))
    history = distiller.fit(*images, epochs=15, verbose=0).history
    assert history["hint_stack1"][-1] < 0.6 * history["hint_stack1"][0]
    assert history["soft_stack1"][-1] < history["soft_stack1"][0]


def test_the_deepest_side_has_no_gradient(images):
    """With weight on the terms alone, what is behind the exits' layer does not move."""
    distiller = exits(soft_weight=1.0, hint_weight=1.0)
    distiller.compile(keras.optimizers.SGD(0.1))
    behind = distiller.net.value.get_layer("logits")
    before = [np.array(w) for w in behind.weights]
    head = np.array(distiller.student.get_layer("stack1_exit").kernel)
    distiller.fit(images[0], epochs=2, verbose=0)
    for a, b in zip(before, behind.weights, strict=True):
        np.testing.assert_array_equal(a, np.array(b))
    assert np.abs(head - distiller.student.get_layer("stack1_exit").kernel).max() > 0


def test_any_exit_predicts_and_is_judged(images):
    x, y = images
    distiller = compiled(exits(), metrics=["accuracy"])
    distiller.fit(x, y, verbose=0)
    found = distiller.evaluate(x, y, return_dict=True, verbose=0)
    together = distiller.predict(x, verbose=0)
    for name in ("stack1", "deepest"):
        alone = distiller.exit(name).predict(x, verbose=0)
        np.testing.assert_allclose(alone, together[name], atol=1e-6)
        right = (alone.argmax(-1) == y).mean()
        assert found[f"{name}_accuracy"] == pytest.approx(right, abs=1e-6)
    np.testing.assert_allclose(
        together["deepest"], distiller.net.value.predict(x, verbose=0), atol=1e-6
    )
    rows = kd.analysis.exits(distiller, kd.data.Samples(x, y))
    assert [row["exit"] for row in rows] == ["stack1", "deepest"]
    # Convolutions to (8, 8, 4) and (4, 4, 8), and the head; the exit has its own second.
    by_hand = 8 * 8 * 4 * 9 + 4 * 4 * 8 * 9 * 4 + 8 * 3
    assert [row["multiplications"] for row in rows] == [by_hand, by_hand]
    assert rows[1]["accuracy %"] == f"{100 * found['deepest_accuracy']:.2f}"


def test_saved_and_loaded_it_goes_on(images, tmp_path):
    distiller = compiled(exits(), metrics=["accuracy"])
    distiller.fit(*images, shuffle=False, verbose=0)
    distiller.save(tmp_path / "self.keras")
    loaded = keras.saving.load_model(tmp_path / "self.keras")
    for model in (distiller, loaded):
        model.fit(*images, shuffle=False, verbose=0)
    for a, b in zip(distiller.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


def test_two_replicas_are_one_on_the_global_batch(images, two_replicas):
    def run():
        keras.utils.set_random_seed(7)
        student = conv_pair(norm=False)[0]
        # Without features, exits have no normalisation.
        distiller = compiled(kd.SelfDistiller(student, ["stack1", "stack2"]))
        distiller.fit(*images, batch_size=16, shuffle=False, verbose=0)
        return [np.array(w) for w in distiller.weights]

    one = run()
    with two_replicas.scope():
        two = run()
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def grown():
    """A sequential net whose layers Keras calls anew with each that is added."""
    net = keras.Sequential([keras.Input((4,))])
    net.add(layers.Dense(5, "tanh", name="hidden"))
    net.add(keras.Sequential([layers.Dense(6, "tanh", name="hidden")], name="block"))
    net.add(layers.Dense(3, name="logits"))
    return net


def called():
    net = keras.Sequential(grown().layers)
    net(points()[0])
    return net


def functional():
    x = keras.Input((4,))
    y = x
    for layer in grown().layers:
        y = layer(y)
    return keras.Model(x, y)


@pytest.mark.parametrize("kind", [grown, called])
def test_a_sequential_net_is_as_a_functional_one(kind, tmp_path):
    x, y = points()
    found = []
    for make in (functional, kind):
        keras.utils.set_random_seed(3)
        distiller = compiled(kd.SelfDistiller(make(), ["hidden", "block"]))
        logs = distiller.fit(x, y, epochs=2, shuffle=False, verbose=0).history
        found.append(logs)
    for name, values in found[0].items():
        assert found[1][name] == pytest.approx(values, rel=1e-6)
    distiller.save(tmp_path / "self.keras")
    loaded = keras.saving.load_model(tmp_path / "self.keras")
    for name, z in distiller.predict(x, verbose=0).items():
        np.testing.assert_allclose(loaded.predict(x, verbose=0)[name], z, atol=1e-6)
    assert distiller.exit("block").predict(x, verbose=0).shape == (12, 3)


def test_features_after_a_pooling():
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32")
    net = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3, name="map")])
    net.add(layers.GlobalAveragePooling2D(name="pool"))
    net.add(layers.Dense(5, name="last"))
    net.add(layers.Dense(3, name="logits"))
    distiller = kd.SelfDistiller(net, ["map"], features="last", hint_weight=1.0)
    parts = [distiller.student.get_layer(n).output for n in ("map_bottleneck", "last")]
    both = keras.Model(distiller.student.inputs, parts)
    outputs = map(ops.convert_to_numpy, both(x, training=True))
    early, deep = (part.astype("float64") for part in outputs)
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.fit(x, batch_size=8, verbose=0).history["hint_map"][0]
    assert found == pytest.approx(0.5 * np.square(deep - early).mean(), rel=1e-4)


def shared():
    x, layer = keras.Input((4,)), layers.Dense(4, name="hidden")
    return keras.Model(x, layers.Dense(3, name="logits")(layer(layer(x))))


def make(*exits, net=None, **arguments):
    return kd.SelfDistiller(net or conv_pair()[0], exits, **arguments)


def beside():
    """A net with a layer that leads nowhere."""
    model = conv_pair()[0]
    layers.Dense(3, name="aside")(model.get_layer("stack1").output)
    return model


def of_words():
    x = keras.Input((4,), dtype="int32", name="words")
    y = layers.Embedding(9, 3, name="table")(x)
    y = layers.GlobalAveragePooling1D(name="pool")(y)
    return keras.Model(x, layers.Dense(3, name="logits")(y))


BAD = {
    "no exits": (lambda: make(), ["one or more"]),
    "one twice": (lambda: make("stack1", "stack1"), ["different layers"]),
    "no such layer": (lambda: make("stack9"), ["no layer 'stack9'", "stack2"]),
    "a layer beside": (
        lambda: make("aside", net=beside()),
        ["no layer 'aside' on the way to its output"],
    ),
    "the output": (lambda: make("logits"), ["before the output"]),
    "words": (lambda: make("words", net=of_words()), ["real numbers"]),
    "a shape that can't be reached": (
        lambda: make("stack2", features="stack1"),
        ["cannot reduce", "stack2"],
    ),
    "a layer of two calls": (
        lambda: make("hidden", net=shared()),
        ["'hidden'", "of several calls"],
    ),
    "features that are a map, of a vector": (
        lambda: make("pool", features="stack2", net=kd.models.conv_net((8, 8, 1), 3)),
        ["both must be maps, sequences or vectors"],
    ),
    "a share": (
        lambda: make("stack1", soft_weight=1.5),
        ["soft_weight must be 0 to 1", "1.5"],
    ),
    "a negative weight": (
        lambda: make("stack1", features="stack2", hint_weight=-1.0),
        ["0 or more"],
    ),
    "no such exit": (lambda: make("stack1").exit("stack2"), ["no exit 'stack2'"]),
    "labels outside": (
        lambda: compiled(make("stack1")).fit(np.ones((4, 8, 8, 1)), np.full(4, 3)),
        ["0..2"],
    ),
}


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_is_refused_before_the_first_step(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word in str(error.value)


def test_exits_have_the_channels_last_whatever_the_configuration(channels_first):
    shapes = []
    for data_format in ("channels_last", "channels_first"):
        keras.config.set_image_data_format("channels_last")
        net = conv_pair()[0]
        keras.config.set_image_data_format(data_format)
        student = kd.SelfDistiller(net, ["stack1"], features="stack2").student
        shapes.append([variable.shape for variable in student.variables])
    assert shapes[0] == shapes[1]


def test_only_functional_nets_have_exits():
    class Own(keras.Model):
        pass

    with pytest.raises(TypeError, match="functional"):
        make("a", net=Own())


def test_exits_that_are_none_are_refused():
    x = keras.Input((4,), name="given")
    hidden = layers.Dense(5, name="hidden")(x)
    with pytest.raises(ValueError, match="No exit can be at 'given'"):
        kd.SelfDistiller(keras.Model(x, layers.Dense(3)(hidden)), ["given"])


def test_exits_of_a_net_of_tokens_speak_for_each_token():
    x = keras.Input((6,), dtype="int32")
    hidden = layers.Embedding(7, 4)(x)
    hidden = layers.Conv1D(5, 3, padding="causal", name="hidden")(hidden)
    distiller = kd.SelfDistiller(
        keras.Model(x, layers.Dense(7, name="logits")(hidden)), ["hidden"]
    )
    tokens = np.random.default_rng(0).integers(0, 7, (8, 6))
    compiled(distiller).fit(tokens, tokens, verbose=0)
    assert distiller.exit("hidden").output.shape == (None, 6, 7)
    pooled = layers.GlobalAveragePooling1D(name="pooled")(hidden)
    more = layers.Add()([hidden, layers.Reshape((1, 5))(pooled)])
    with pytest.raises(ValueError, match="cannot reach logits"):
        kd.SelfDistiller(keras.Model(x, layers.Dense(7)(more)), ["pooled"])


def behind_a_stop(stop, head="glorot_uniform", beside=False):
    """A net in which something stands between its layer "hidden" and the output."""
    x = keras.Input((4,), name="given")
    hidden = layers.Dense(5, name="hidden")(x)
    y = stop(hidden)
    if beside:
        y = layers.Add()([y, layers.Dense(5)(hidden)])
    made = layers.Dense(3, kernel_initializer=head, name="logits")
    return keras.Model(x, made(layers.ReLU()(y)))


class Stops(layers.Layer):
    def call(self, x):
        return keras.ops.stop_gradient(x)


STOPS = {
    "operation": keras.ops.stop_gradient,
    "layer": Stops(),
    "rounding": keras.ops.sign,
}


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_an_exit_that_no_gradient_comes_to_is_refused(stop):
    distiller = compiled(kd.SelfDistiller(behind_a_stop(stop), ["hidden"]))
    before = [np.array(w) for w in distiller.weights]
    with pytest.raises(ValueError, match=r"No exit can be at 'hidden'.*stops it"):
        distiller.fit(*points(), verbose=0)
    for a, b in zip(before, distiller.weights, strict=True):
        np.testing.assert_array_equal(a, np.array(b))


class Rounds(layers.Layer):
    """Gives signs in inference, and has a slope in training alone."""

    def call(self, x, training=False):
        return 2.0 * x if training else keras.ops.sign(x)


@pytest.mark.parametrize(
    "net",
    [
        lambda: behind_a_stop(keras.ops.stop_gradient, beside=True),
        lambda: behind_a_stop(layers.Identity(), head="zeros"),
        lambda: behind_a_stop(Rounds()),
    ],
    ids=["stopped on one of two ways", "weights that are zero now", "in training"],
)
def test_an_exit_that_a_gradient_may_come_to_is_taken(net):
    distiller = compiled(kd.SelfDistiller(net(), ["hidden"]))
    logs = distiller.fit(*points(), verbose=0).history
    assert logs["soft_hidden"][0] > 0


def test_exits_of_a_net_of_several_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    hidden = layers.Dense(5, name="hidden")(layers.Concatenate()([a, b]))
    for inputs in ({"a": a, "b": b}, [a, b]):
        net = keras.Model(inputs, layers.Dense(3)(layers.Add()([hidden, hidden])))
        distiller = compiled(kd.SelfDistiller(net, ["hidden"]))
        x, y = points()
        given = {"a": x, "b": -x} if isinstance(inputs, dict) else [x, -x]
        logs = distiller.fit(given, y, verbose=0).history
        assert logs["soft_hidden"][0] > 0
