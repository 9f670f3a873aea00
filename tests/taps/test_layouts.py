"""Maps with channels first are refused, and nothing else of such models."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from keras_distill.taps import Tap

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype("float32")
FIRST, LAST = "channels_first", "channels_last"


def classifier(data_format=FIRST, name="net"):
    shape = (3, 8, 8) if data_format == FIRST else (8, 8, 3)
    inputs = keras.Input(shape)
    x = layers.Conv2D(4, 3, data_format=data_format, name="c")(inputs)
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(data_format=data_format, name="pool")(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x), name=name)


def segmenter():
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(4, 3, padding="same", data_format=FIRST)(inputs)
    x = layers.Conv2D(5, 1, data_format=FIRST)(x)
    return keras.Model(inputs, x, name="segmenter")


class Subclassed(keras.Model):
    """A model with the net of channels first inside."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.inner = classifier()

    def call(self, x):
        return self.inner(x)


def hint(student, teacher, **kwargs):
    term = kd.Term(kd.losses.Hint(), student, teacher)
    return lambda a, b: kd.Distiller(a, b, terms=[term], label_weight=0.0, **kwargs)


@pytest.mark.parametrize("path", ["c", "relu", Tap("pool", side="input")])
def test_a_map_of_either_side_is_refused(path):
    message = r"channels_first \(layer 'c'\).*data_format='channels_last'"
    for pair in ((FIRST, FIRST), (FIRST, LAST), (LAST, FIRST)):
        with pytest.raises(ValueError, match=message):
            hint(path, path)(*map(classifier, pair))


def test_logits_of_each_location_are_refused():
    with pytest.raises(ValueError, match="'segmenter' computes with channels_first"):
        kd.Distiller(segmenter(), segmenter())


def test_vectors_are_not():
    distiller = hint("pool", "pool")(classifier(), classifier())
    assert tuple(distiller.shapes["student"]["pool"])[1:] == (4,)
    assert kd.Distiller(classifier(), classifier(LAST)).built


def test_subclassed_models_are_refused_with_the_first_batch():
    student = Subclassed()
    distiller = hint("inner/c", "c")(student, classifier())
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="'subclassed' computes with channels_first"):
        distiller.bind_to(IMAGES)


def test_a_gradient_of_such_an_image_is_refused():
    tap = Tap.input_gradient()
    term = kd.Term(kd.losses.Jacobian(), tap, tap)
    with pytest.raises(ValueError, match="the tap 'label_gradient' has its channels"):
        kd.Distiller(classifier(), classifier(), terms=[term])


def test_what_the_author_arranged_is_compared():
    """Behind a permutation, and tokens of patches that a convolution embedded."""
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(4, 4, 4, data_format=FIRST)(inputs)
    x = layers.Permute((2, 3, 1), name="turned")(x)
    tokens = layers.Reshape((4, 4), name="tokens")(x)
    tokens = layers.LayerNormalization(name="norm")(tokens)
    pooled = layers.GlobalAveragePooling1D()(tokens)
    net = keras.Model(inputs, layers.Dense(2)(pooled))
    other = keras.models.clone_model(net)
    for path in ("turned", "tokens", "norm"):
        assert hint(path, path)(net, other).built


def test_steps_of_such_maps_are_refused():
    frame = keras.Sequential([keras.Input((3, 8, 8)), *classifier().layers[1:]])
    inputs = keras.Input((2, 3, 8, 8))
    x = layers.TimeDistributed(frame, name="td")(inputs)
    net = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    with pytest.raises(ValueError, match="channels_first"):
        hint("td/layer/c", "td/layer/c")(net, keras.models.clone_model(net))


def test_exits_and_analysis_refuse_them():
    with pytest.raises(ValueError, match="so the exit 'c' has its channels"):
        kd.SelfDistiller(classifier(), ["c"])
    assert kd.SelfDistiller(classifier(), ["pool"]).built
    with pytest.raises(ValueError, match="channels_first"):
        kd.analysis.attention_maps(classifier(), IMAGES, "c")
    with pytest.raises(ValueError, match="channels_first"):
        kd.analysis.pixel_entropies(classifier(), IMAGES, "c")
