"""The private parts of Keras's layers, on models whose parts are known."""

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_distill._backend import keras_layers
from keras_distill._backend.keras_layers import Untracked
from tests.differentiation import compilers

TOKENS = np.array([[3, 1, 0, 0], [2, 0, 5, 6]], "int32")


class Block(layers.Layer):
    """A custom layer with layers in an attribute, a list and a dict, and weights."""

    def __init__(self, shared, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(3, name="first")
        self.several = [layers.Dense(3, name="listed"), shared]
        self.named = {"norm": layers.BatchNormalization(name="named")}
        self.scale = self.add_weight(shape=(3,), name="scale")
        self.count = self.add_weight(shape=(), name="count", trainable=False)

    def call(self, x):
        x = self.several[0](self.first(x))
        return self.scale * self.named["norm"](self.several[1](x))


def nested():
    """Create a model with a layer that occurs twice, and list all layers by depth."""
    shared, inputs = layers.Dense(3, name="shared"), keras.Input((3,), name="image")
    inner = keras.Sequential(
        [keras.Input((3,), name="x"), layers.ReLU(name="relu")], name="inner"
    )
    block = Block(shared, name="block")
    model = keras.Model(inputs, shared(block(inner(inputs))), name="outer")
    direct = {"image", "inner", "block", "shared"}
    below = {"x", "relu", "first", "listed", "named"}
    return model, direct, below


def names(found):
    return sorted(layer.name for layer in found)


def test_flatten_layers_lists_each_layer_once():
    model, direct, below = nested()
    found = keras_layers.flatten_layers(model)
    assert found[0] is model
    assert names(found) == sorted({"outer"} | direct | below)
    assert found[1:] == keras_layers.flatten_layers(model, include_self=False)
    dense = layers.Dense(2)
    assert keras_layers.flatten_layers(dense) == [dense]


def test_sublayers_are_the_direct_ones():
    model, direct, _ = nested()
    assert names(keras_layers.sublayers(model)) == sorted(direct)
    block = model.get_layer("block")
    expected = ["first", "listed", "named", "shared"]
    assert names(keras_layers.sublayers(block)) == expected
    assert keras_layers.sublayers(layers.Dense(2)) == []


@pytest.mark.parametrize("trainable", [True, False])
def test_own_trainable_variables_leave_out_sublayers(trainable):
    """They are those that the layer would train, also while it is frozen."""
    model, _, _ = nested()
    block = model.get_layer("block")
    block.trainable = trainable
    (found,) = keras_layers.own_trainable_variables(block)
    assert found is block.scale
    assert len(block.trainable_variables) == (9 if trainable else 0)
    assert keras_layers.own_trainable_variables(model) == []


@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
def test_mask_of_an_embedding(compiler):
    available = {"none": lambda function: function, **compilers()}
    if compiler not in available:
        pytest.skip(f"{keras.backend.backend()} has no such compiler")
    embedding = layers.Embedding(9, 3, mask_zero=True)
    embedding.build()

    def masks(tokens):
        embedded = embedding(tokens)
        kept = layers.Activation("tanh")(embedded)
        assert keras_layers.mask_of(tokens) is None
        return keras_layers.mask_of(embedded), keras_layers.mask_of(kept)

    for mask in available[compiler](masks)(ops.convert_to_tensor(TOKENS)):
        np.testing.assert_array_equal(ops.convert_to_numpy(mask), TOKENS != 0)


@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
def test_a_mask_that_is_set_is_found(compiler):
    available = {"none": lambda function: function, **compilers()}
    if compiler not in available:
        pytest.skip(f"{keras.backend.backend()} has no such compiler")

    def masks(tokens):
        tensor = keras_layers.with_mask(ops.cast(tokens, "float32"), tokens > 2)
        found = keras_layers.mask_of(tensor)
        assert keras_layers.mask_of(keras_layers.with_mask(tensor, None)) is None
        return found

    found = available[compiler](masks)(ops.convert_to_tensor(TOKENS))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), TOKENS > 2)


def test_no_mask_without_a_layer_that_computes_one():
    embedded = layers.Embedding(9, 3)(TOKENS)
    assert keras_layers.mask_of(embedded) is None


@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
def test_a_mask_that_is_attached_reaches_the_next_layers(compiler):
    available = {"none": lambda function: function, **compilers()}
    if compiler not in available:
        pytest.skip(f"{keras.backend.backend()} has no such compiler")
    row = keras.Sequential([layers.Dense(2), layers.GlobalAveragePooling1D()])
    row.build((2, 4, 3))
    features = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")

    def run(features, mask):
        features = keras_layers.with_mask(features, mask)
        return row(features), keras_layers.mask_of(row.layers[0](features))

    arguments = map(ops.convert_to_tensor, (features, TOKENS != 0))
    pooled, mask = available[compiler](run)(*arguments)
    np.testing.assert_array_equal(ops.convert_to_numpy(mask), TOKENS != 0)
    kernel, bias = (ops.convert_to_numpy(w) for w in row.weights)
    weights = (TOKENS != 0) / (TOKENS != 0).sum(1, keepdims=True)
    expected = np.einsum("bl,bld->bd", weights, features @ kernel + bias)
    np.testing.assert_allclose(ops.convert_to_numpy(pooled), expected, atol=1e-5)


class Owner(layers.Layer):
    """A layer that holds another one."""

    def __init__(self, held):
        super().__init__(name="owner")
        self.held = held
        self.kernel = self.add_weight(shape=(2,), name="kernel")

    def call(self, x):
        return x * self.kernel


def saved_values(layer, path):
    """Return the number of values in the file of a model with one layer."""
    inputs = keras.Input((2,))
    keras.Model(inputs, layer(inputs)).save_weights(path)
    sizes = []
    with h5py.File(path) as file:
        file.visititems(lambda _, x: sizes.append(getattr(x, "size", 0)))
    return sum(sizes)


def test_untracked_layers_are_not_trained_counted_or_saved(tmp_path):
    def held():
        dense = layers.Dense(3, activity_regularizer="l2", kernel_regularizer="l2")
        dense.build((None, 2))
        return dense

    owner = Owner(Untracked([held(), {"metric": keras.metrics.Mean()}]))
    assert keras_layers.flatten_layers(owner) == [owner]
    assert owner.variables == owner.trainable_variables == [owner.kernel]
    assert saved_values(owner, tmp_path / "untracked.weights.h5") == 2
    assert owner.losses == [] and owner.count_params() == 2
    # A plain list is tracked, so Untracked is needed.
    tracked = Owner([held()])
    assert len(tracked.trainable_variables) == 3 and len(tracked.losses) == 1
    assert saved_values(tracked, tmp_path / "tracked.weights.h5") == 11
    assert tracked.count_params() == 11


def test_untracked_returns_what_it_holds():
    value = [layers.Dense(2)]
    assert Owner(Untracked(value)).held.value is value
