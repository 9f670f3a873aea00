"""Layers that compute their activations again in the backward pass."""

import weakref

import keras

from keras_distill._backend.keras_layers import flatten_layers

_without: weakref.WeakSet = weakref.WeakSet()


def rematerialized(model: keras.Layer) -> list[keras.Layer]:
    """Return the layers of a model that were created in a `keras.RematScope`.

    Stands in for a public form of `keras.Operation._remat_mode`, for which no public
    issue asks.
    """
    if model in _without:
        return []
    found = [layer for layer in flatten_layers(model) if layer._remat_mode is not None]
    if not found and model.built:
        _without.add(model)
    return found


def takes_keywords() -> bool:
    """Whether rematerialized layers can be called here, as models call them.

    Stands in for a `keras.RematScope` that works in a graph of TensorFlow: there
    `tf.recompute_grad` takes no keywords, such as `training`, and Keras's own `fit` fails.
    """
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    return tf.executing_eagerly()
