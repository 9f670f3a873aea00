"""Functions of NumPy arrays, called from within a step."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from keras_distill._backend.weak_calls import weakly


def call_on_host(owner, function: Callable, inputs, shapes: Sequence[tuple]) -> list:
    """Call a function of an object and NumPy arrays from a step, compiled or not.

    It is called once a step, on each replica; no gradient passes through it.

    Stands in for a function of `keras.ops` that calls Python from a compiled step, for
    which no public issue asks.

    Args:
        owner: first argument of the function; lives as long as the step.
        function: from the owner and a structure of arrays to arrays of float32, one for
            each shape. It doesn't refer to the owner.
        inputs: a structure of tensors, batch first.
        shapes: of the arrays that it returns, without the batch.

    Returns:
        Tensors, batch first.
    """
    call = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return call[keras.backend.backend()](owner, function, inputs, shapes)


def compiles_with_xla() -> bool:
    """Whether XLA can compile a step with such a call: on TensorFlow it can't."""
    return keras.backend.backend() != "tensorflow"


def takes_unknown_sizes() -> bool:
    """Whether shapes of such a call may have a size of None: on JAX they can't."""
    return keras.backend.backend() != "jax"


def _tensorflow(owner, function, inputs, shapes):
    import tensorflow as tf

    flat = keras.tree.flatten(inputs)

    # Without the tensors, which would keep the graph.
    structure = keras.tree.map_structure(lambda x: 0, inputs)

    def run(owner, *arrays):
        return list(function(owner, keras.tree.pack_sequence_as(structure, arrays)))

    results = tf.numpy_function(weakly(owner, run), flat, [tf.float32] * len(shapes))
    # Eagerly, one result is no list.
    results = results if isinstance(results, list) else [results]
    for result, shape in zip(results, shapes, strict=True):
        result.set_shape((flat[0].shape[0], *shape))
    return results


def _jax(owner, function, inputs, shapes):
    import jax

    rows = ops.shape(keras.tree.flatten(inputs)[0])[0]
    specs = [jax.ShapeDtypeStruct((rows, *shape), "float32") for shape in shapes]

    def run(inputs):
        return list(function(owner, keras.tree.map_structure(np.asarray, inputs)))

    return jax.pure_callback(run, specs, inputs)


def _torch(owner, function, inputs, shapes):
    arrays = keras.tree.map_structure(ops.convert_to_numpy, inputs)
    return [ops.convert_to_tensor(x) for x in function(owner, arrays)]
