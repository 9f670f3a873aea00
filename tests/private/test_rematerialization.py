"""Which layers were created in a scope, and where they can be called."""

import keras
import pytest
from keras import layers

from keras_distill._backend import rematerialization


def net(scope):
    with keras.RematScope("full" if scope else None):
        inside = layers.Dense(3, name="inside")
    inputs = keras.Input((2,))
    return keras.Model(inputs, layers.Dense(1)(inside(inputs)))


def test_layers_of_a_scope():
    model = net(scope=True)
    inside = model.get_layer("inside")
    assert [x for x in rematerialization.rematerialized(model) if x is inside]
    assert rematerialization.rematerialized(layers.Dense(2)) == []


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow alone")
def test_a_graph_of_tensorflow_takes_no_keywords():
    """The day `fit` works there, `takes_keywords` is not needed."""
    import tensorflow as tf

    model, found = net(scope=True), []

    @tf.function
    def run(x):
        found.append(rematerialization.takes_keywords())
        return model(x, training=False)

    assert rematerialization.takes_keywords()
    with pytest.raises(ValueError, match="keyword"):
        run(tf.ones((4, 2)))
    assert found == [False]
