"""A step that destroys a weight stops the training before anything is saved."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
# Where the fourth batch of eight begins, after which the step is looked at.
BAD = 24


@keras.saving.register_keras_serializable(package="tests")
class Length(layers.Layer):
    """The length of each sample, whose gradient at 0 is 0 times infinity."""

    def call(self, inputs):
        return ops.sqrt(ops.sum(ops.square(inputs), axis=-1, keepdims=True))


def net(name):
    length = [layers.Dense(2, use_bias=False, name=f"{name}_in"), Length()]
    return keras.Sequential([keras.Input((4,)), *length, layers.Dense(3)], name=name)


def data():
    x = X.copy()
    x[BAD] = 0.0
    return x, np.arange(40) % 3


def make(mutual=False):
    if mutual:
        distiller = kd.MutualDistiller([net("first"), net("second")])
    else:
        distiller = kd.Distiller(net("student"), net("teacher"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss)
    return distiller


class Saved(keras.callbacks.Callback):
    """A callback that notes the weights it would save."""

    def __init__(self, save_freq):
        super().__init__()
        self.save_freq, self.finite = save_freq, []

    def note(self):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        weights = [ops.convert_to_numpy(v) for v in self.model.trainable_variables]
        self.finite.append(all(np.isfinite(x).all() for x in weights))

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq != "epoch":
            self.note()

    def on_epoch_end(self, epoch, logs=None):
        self.note()


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_the_weight_is_named_and_nothing_is_saved(save_freq, mutual):
    saved = Saved(save_freq)
    name = "first_in/kernel" if mutual else "student_in/kernel"
    with pytest.raises(ValueError, match=rf"the weight '\S*{name}'"):
        make(mutual).fit(
            *data(), batch_size=8, shuffle=False, verbose=0, callbacks=[saved]
        )
    assert saved.finite == [True] * (3 if save_freq == 1 else 0)


def test_in_the_last_step_of_an_epoch():
    """Its loss is that of the weights before, and finite."""
    x, y = data()
    saved = Saved("epoch")
    with pytest.raises(ValueError, match="epoch 0: the weight"):
        make().fit(
            x[8 : BAD + 8],
            y[8 : BAD + 8],
            batch_size=8,
            shuffle=False,
            verbose=0,
            callbacks=[saved],
        )
    assert not saved.finite


def test_a_batch_by_hand():
    x, y = data()
    distiller = make()
    with pytest.raises(ValueError, match="call 1 of the step: the weight"):
        distiller.train_on_batch(x[BAD : BAD + 8], y[BAD : BAD + 8])


@pytest.mark.parametrize("mutual", [False, True])
def test_a_variance_that_overflows(mutual):
    """What it normalizes is 0, and all losses are finite."""

    def normalized(name):
        norm = layers.BatchNormalization(name=f"{name}_norm")
        return keras.Sequential([keras.Input((4,)), norm, layers.Dense(3)], name=name)

    if mutual:
        distiller = kd.MutualDistiller([normalized("first"), normalized("second")])
    else:
        teacher = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
        distiller = kd.Distiller(normalized("student"), teacher)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss)
    x, y = data()
    # On torch the loss is not finite either.
    with pytest.raises(ValueError, match=r"moving_variance'|label_loss"):
        distiller.fit(1e20 * x, y, batch_size=8, verbose=0)
