"""Outputs, gradients and layers are told apart, whatever a layer is called."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.taps import Tap, as_taps

X = np.random.default_rng(0).normal(size=(6, 8)).astype("float32")


def net(width=5, name="net", hidden="hidden", last="head"):
    inputs = keras.Input((8,))
    x = layers.Dense(6, name=hidden)(layers.Dense(width, "relu", name="first")(inputs))
    return keras.Model(inputs, layers.Dense(4, name=last)(ops.relu(x)), name=name)


class Subclassed(keras.Model):
    def __init__(self, scale=1.0):
        super().__init__(name="subclassed")
        self.logits = layers.Dense(4, name="logits")
        self.scale = scale
        self(X)

    def call(self, inputs):
        x = self.logits(inputs)
        return x if self.scale == 1.0 else x * self.scale


def test_the_short_form_is_the_output():
    assert as_taps("logits") == (Tap.output(),)
    assert as_taps("logits/kind") == (Tap.output("kind"),)
    assert as_taps("1/logits") == (Tap.output(member=1),)
    assert Tap.output(2).output_name == "2"
    assert as_taps("logits")[0] != Tap.layer("logits")
    assert not as_taps("hidden")[0].is_output
    assert not Tap("logits", side="input").is_output


def test_layers_of_any_name_are_tapped():
    for name in ("logits", "label_gradient", "class_gradient"):
        model = net(hidden=name)
        _, tensors = kd.taps.forward(
            model, X, [Tap.layer(name), Tap.output()], training=False
        )
        found = tensors[Tap.layer(name)], tensors[Tap.output()]
        expected = model.get_layer(name)(model.get_layer("first")(X)), model(X)
        for pair in zip(found, expected, strict=True):
            np.testing.assert_allclose(*map(ops.convert_to_numpy, pair), atol=1e-6)


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize(
    "ambiguous",
    [lambda: net(7, "clash", "logits"), lambda: Subclassed(2.0)],
    ids=["functional", "subclassed"],
)
def test_a_name_that_may_mean_two_tensors_is_refused(side, ambiguous):
    models = {"student": net(5, "a"), "teacher": net(6, "b"), side: ambiguous()}
    term = kd.Term(kd.losses.SoftTarget(), "logits", "logits")
    with pytest.raises(ValueError) as error:
        distiller = kd.Distiller(**models, terms=[term])
        distiller.compile("sgd")
        distiller.fit(X, verbose=0)
    for name in ("kd.Tap.output()", "kd.Tap.layer('logits')"):
        assert name in str(error.value)


def test_explicit_taps_and_the_default_mean_the_output():
    models = net(5, "a", "logits"), net(6, "b", "logits")
    output = kd.Term(kd.losses.SoftTarget(), Tap.output(), Tap.output())
    hidden = Tap.layer("logits")
    both = [output, kd.Term(kd.losses.Hint(), hidden, hidden)]
    distiller = kd.Distiller(*models, terms=both)
    assert distiller.shapes["student"] == {
        "logits": [None, 4],
        "logits (layer)": [None, 6],
    }
    assert kd.Distiller(*models).shapes["teacher"] == {"logits": [None, 4]}


def test_a_last_layer_of_that_name_is_no_clash():
    term = kd.Term(kd.losses.SoftTarget(), "logits", "logits")
    for model in (net(5, "a", last="logits"), Subclassed()):
        distiller = kd.Distiller(model, net(6, "b", last="logits"), terms=[term])
        distiller.compile("sgd")
        logs = distiller.fit(X, verbose=0).history
        assert logs["soft_target"] == logs["loss"] != [0.0]
        assert distiller.shapes["student"] == distiller.shapes["teacher"]


def test_of_several_outputs_one_may_be_named_as_a_layer():
    def two(width, name):
        inputs = keras.Input((8,))
        x = layers.Dense(width, name="kind")(inputs)
        outputs = {"kind": layers.Dense(3, name="last")(x), "size": layers.Dense(2)(x)}
        return keras.Model(inputs, outputs, name=name)

    term = kd.Term(kd.losses.SoftTarget(), "logits/kind", "logits/kind")
    distiller = kd.Distiller(two(4, "a"), two(5, "b"), terms=[term])
    assert distiller.shapes["student"] == {"logits/kind": [None, 3]}


def test_gradients_have_a_constructor():
    assert Tap.input_gradient() != Tap("label_gradient")
    assert str(Tap.input_gradient("first_class")) == "class_gradient"
    assert Tap.input_gradient(mirrored=True).is_gradient
    for arguments in ({"of": "loss"}, {"of": "first_class", "mirrored": True}):
        with pytest.raises(ValueError, match=r"'labels'.*'first_class'"):
            Tap.input_gradient(**arguments)
    with pytest.raises(ValueError, match=r"kd\.Tap\.input_gradient\(\)"):
        kd.taps.forward(net(), X, [Tap("label_gradient")], training=False)


@pytest.mark.parametrize(
    "tap",
    [
        Tap("logits"),
        Tap.layer("logits", 1, "input"),
        Tap.output("kind", member=1),
        Tap.input_gradient("first_class"),
    ],
    ids=str,
)
def test_a_tap_is_the_same_after_serialization(tap):
    again = Tap.from_config(tap.get_config())
    assert again == tap
    assert hash(again) == hash(tap)


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="kind is 'layer', 'output' or 'gradient'"):
        Tap("hidden", kind="hidden")
