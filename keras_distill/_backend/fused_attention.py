"""The fused attention of Keras, of which scores are wanted too."""

import contextlib
from collections.abc import Callable

import keras

from keras_distill._backend.replaced_methods import replaced


@contextlib.contextmanager
def replaced_attention(make: Callable):
    """Replace `keras.ops.dot_product_attention` wherever layers find it.

    `make` is as in `replaced`. Stands in for a public way to get the scores of a layer
    inside of a model: `return_attention_scores` is an argument of its call, which the
    model makes, and the layers of keras_hub have none. Keras's own layers find the
    function in `keras.src.ops`. No public issue asks for one.
    """
    from keras.src import ops

    modules = keras.ops, keras.ops.nn, ops
    with replaced(modules, "dot_product_attention", make):
        yield
