"""Gradients of a net's own output by its input, on whichever backend runs."""

from __future__ import annotations

from collections.abc import Callable

import keras


def by_input(function: Callable, inputs):
    """Run a function once and differentiate numbers that it gives by its input.

    The gradients can be differentiated again, by the weights that the function uses: a
    loss on them costs a second pass backwards through the first one.

    Args:
        function: from inputs to a dict of scalars, and whatever else it made.
        inputs: a tensor.

    Returns:
        The dict with a gradient in place of each scalar, and the rest.
    """
    if keras.backend.backend() == "jax":
        import jax

        scalars, pull_back, rest = jax.vjp(function, inputs, has_aux=True)
        gradients = {}
        for name in scalars:
            only = {other: 1.0 * (other == name) for other in scalars}
            only = jax.tree.map(
                lambda x, s: jax.numpy.asarray(x, s.dtype), only, scalars
            )
            gradients[name] = pull_back(only)[0]
        return gradients, rest
    if keras.backend.backend() == "torch":
        import torch

        inputs = inputs.detach().requires_grad_(True)
        with torch.enable_grad():
            scalars, rest = function(inputs)
            return {
                name: torch.autograd.grad(scalar, inputs, create_graph=True)[0]
                for name, scalar in scalars.items()
            }, rest
    import tensorflow as tf

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        scalars, rest = function(inputs)
    gradients = {name: tape.gradient(scalars[name], inputs) for name in scalars}
    return gradients, rest
