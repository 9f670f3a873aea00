"""Keras's fused attention is replaced where layers find it, and restored."""

import keras
import numpy as np
from keras import layers, ops

from keras_distill._backend.fused_attention import replaced_attention

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")


def test_layers_of_keras_and_others_call_the_replacement():
    calls, function = [], keras.ops.dot_product_attention

    def make(original, module):
        def noted(*args, **kwargs):
            calls.append(module)
            return original(*args, **kwargs)

        return noted

    attention = layers.MultiHeadAttention(1, 4)
    plain = attention(X, X)
    with replaced_attention(make):
        again = attention(X, X)
        ops.dot_product_attention(*(X[:, :, None],) * 3)
        keras.ops.nn.dot_product_attention(*(X[:, :, None],) * 3)
    assert len(calls) == 3 and keras.ops.dot_product_attention is function
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (plain, again)))
    attention(X, X)
    assert len(calls) == 3
