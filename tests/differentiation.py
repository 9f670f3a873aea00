"""Gradients and compiled functions on whichever backend runs."""

import keras
import numpy as np


def differentiate(function, *arguments):
    """Return the value of a function, and the gradients of its sum by each argument.

    Args:
        function: function from tensors, or structures of them, to a tensor.
        *arguments: the tensors.

    Returns:
        The value, and a tuple of gradients in the structure of the arguments. Where no
        gradient flows it has None, on JAX zeros.
    """
    by_backend = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return by_backend[keras.backend.backend()](function, arguments)


def unreached(gradient):
    """Whether no gradient flowed to an argument."""
    if keras.backend.backend() == "jax":
        return not np.any(gradient)
    return gradient is None


def compilers():
    """Return the backend's ways to compile a function, by name."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return {"traced": tf.function, "jit": tf.function(jit_compile=True)}
    if backend == "jax":
        import jax

        return {"jit": jax.jit}
    return {}


def _tensorflow(function, arguments):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = function(*arguments)
    return value, tape.gradient(value, arguments)


def _jax(function, arguments):
    import jax

    def total(*arguments):
        value = function(*arguments)
        return value.sum(), value

    indices = tuple(range(len(arguments)))
    (_, value), gradients = jax.value_and_grad(total, indices, has_aux=True)(*arguments)
    return value, gradients


def _torch(function, arguments):
    import torch

    leaves = keras.tree.map_structure(
        lambda x: x.detach().clone().requires_grad_(True), arguments
    )
    value = function(*leaves)
    gradients = torch.autograd.grad(
        value.sum(), keras.tree.flatten(leaves), allow_unused=True
    )
    return value.detach(), keras.tree.pack_sequence_as(arguments, gradients)
