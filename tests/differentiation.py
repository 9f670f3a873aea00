"""Gradients and compiled functions on whichever backend runs."""

import keras
import numpy as np


def differentiate(function, *arguments):
    """Give what a function gives, and the gradients of its sum by each argument.

    Args:
        function: from tensors, or structures of them, to a tensor.
        *arguments: the tensors.

    Returns:
        The value, and a tuple of the arguments' structures. What no gradient reaches
        has None there, on JAX zeros.
    """
    found = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return found[keras.backend.backend()](function, arguments)


def unreached(slope):
    """Tell whether no gradient reached an argument."""
    if keras.backend.backend() == "jax":
        return not np.any(slope)
    return slope is None


def compilers():
    """Give the ways to compile a function, by name."""
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

    places = tuple(range(len(arguments)))
    (_, value), slopes = jax.value_and_grad(total, places, has_aux=True)(*arguments)
    return value, slopes


def _torch(function, arguments):
    import torch

    leaves = keras.tree.map_structure(
        lambda x: x.detach().clone().requires_grad_(True), arguments
    )
    value = function(*leaves)
    slopes = torch.autograd.grad(
        value.sum(), keras.tree.flatten(leaves), allow_unused=True
    )
    return value.detach(), keras.tree.pack_sequence_as(arguments, slopes)
