"""Paths are printed that work as taps and are the same in every process."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_distill import taps


class Block(layers.Layer):
    """Layers in attributes, a list and a dict, none of them named."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(3)
        self.rest = [layers.Dense(3), [layers.Dense(3)]]
        self.norms = {"last": layers.LayerNormalization()}
        self._hidden = layers.Dense(3)
        self._chosen = layers.Dense(3, name="chosen")
        self.attention = layers.MultiHeadAttention(1, 2)

    def call(self, x):
        return self.norms["last"](x)


class Crossed(keras.Model):
    """Two layers, each in an attribute that has the name of the other."""

    def __init__(self):
        super().__init__()
        self.one, self.two = layers.Dense(3, name="two"), layers.Dense(3, name="one")
        self.block = Block()

    def call(self, x):
        return self.block(self.one(self.two(x)))


def functional():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="named")(layers.Dense(3)(inputs))
    model = keras.Sequential([layers.Dense(4), layers.Dense(4)])
    return keras.Model(inputs, layers.Dense(2)(model(layers.Dense(4)(x))))


def subclassed():
    model = Crossed()
    x = np.zeros((1, 3), "float32")
    model(x)
    model.block.attention(x[None], x[None])
    return model


@pytest.mark.parametrize("make", [functional, subclassed])
def test_paths_are_taps_and_do_not_count_layers(make):
    model = make()
    paths = list(taps.layer_paths(model))
    layers.Dense(2), layers.LayerNormalization()
    assert list(taps.layer_paths(make())) == paths
    found = [taps.find_layer(model, path) for path in paths]
    assert len({id(layer) for layer in found}) == len(paths)
    below = list(model._flatten_layers(include_self=False))
    assert len(below) == len(paths)


def test_attributes_come_first_and_names_before_indices():
    assert list(taps.layer_paths(functional()))[:4] == [
        "layers/0",
        "layers/1",
        "named",
        "layers/3",
    ]
    paths = list(taps.layer_paths(subclassed()))
    assert paths[:3] == ["two", "one", "block"]
    assert paths[3:9] == [
        "block/first",
        "block/rest/0",
        "block/rest/1/0",
        "block/norms/last",
        "block/_hidden",
        "block/chosen",
    ]
    queries = [f"block/attention/{name}_dense" for name in ("query", "key", "value")]
    assert [path for path in paths if path in queries] == queries


def test_keras_hub_has_the_paths_of_its_attributes():
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed").models
    backbone = hub.GPT2Backbone(
        vocabulary_size=7,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=6,
    )
    paths = list(taps.layer_paths(hub.GPT2CausalLM(backbone, preprocessor=None)))
    assert {"backbone", "backbone/transformer_layers/1"} <= set(paths)
    attention = "backbone/transformer_layers/1/self_attention"
    for name in ("query", "key", "value"):
        assert f"{attention}/{name}_dense" in paths
