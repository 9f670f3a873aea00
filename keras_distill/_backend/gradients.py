"""Gradients of a net's own output by its input, on whichever backend runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

import keras
from keras import ops

_exchange = threading.Lock()
_plain_moments = []


def custom_gradient(function: Callable) -> Callable:
    """Differentiate a function by a rule of its own, on every backend alike.

    Stands in for one calling convention of `keras.ops.custom_gradient`, whose rule gets
    the gradient by the output in another way on each backend.

    Args:
        function: from tensors to a value and its rule: a function from the gradient by
            the value to that by each tensor.

    Example:
        >>> @custom_gradient
        ... def square(x):
        ...     return x * x, lambda upstream: 2 * x * upstream
    """

    @ops.custom_gradient
    def differentiable(*tensors):
        value, rule = function(*tensors)

        def gradient(*args, upstream=None):
            return rule(args[0] if upstream is None else upstream)

        return value, gradient

    return differentiable


def by_input(function: Callable, inputs, variables: Sequence = ()):
    """Run a function and differentiate numbers that it gives by its input.

    The gradients can be differentiated again, by the weights that the function uses: a
    loss on them costs a second pass backwards through the first one. The function runs
    once; on JAX once more for each scalar, which the compiler makes one run again.

    Args:
        function: from inputs to a dict of scalars, and whatever else it made.
        inputs: a tensor.
        variables: what the function may move, as running statistics.

    Returns:
        The dict with a gradient in place of each scalar, and the rest.
    """
    found = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}
    return found[keras.backend.backend()](function, inputs, variables)


def _tensorflow(function, inputs, variables):
    import tensorflow as tf

    with _moments_differentiable_twice(), tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        scalars, rest = function(inputs)
    return {name: tape.gradient(x, inputs) for name, x in scalars.items()}, rest


def _torch(function, inputs, variables):
    import torch

    inputs = inputs.detach().requires_grad_(True)
    with torch.enable_grad():
        scalars, rest = function(inputs)
        return {
            name: torch.autograd.grad(x, inputs, create_graph=True)[0]
            for name, x in scalars.items()
        }, rest


def _jax(function, inputs, variables):
    import jax

    # What moves inside a differentiation may not leave it, so the run that moves the
    # variables is one of its own.
    start = [(variable, variable.value) for variable in variables]

    def score(inputs, name):
        with keras.StatelessScope(start):
            return function(inputs)[0][name]

    with keras.StatelessScope(start):
        names = list(jax.eval_shape(lambda x: function(x)[0], inputs))
    slopes = {name: jax.grad(score)(inputs, name) for name in names}
    # Last, as what a layer adds to the loss is that of its last call.
    return slopes, function(inputs)[1]


def forget(model) -> None:
    """Drop the gradients that torch leaves on a net that only lay on their way."""
    if keras.backend.backend() == "torch":
        for variable in model.variables:
            variable.value.grad = None


@contextlib.contextmanager
def _moments_differentiable_twice():
    """Let normalisation layers take moments whose second derivatives are right.

    `tf.nn.moments` holds the mean still inside the variance, which leaves value and
    slope as they are and spoils the slope of the slope. It is exchanged for the length
    of one pass; whoever else calls it meanwhile gets the same numbers.
    """
    import tensorflow as tf

    def moments(x, axes, shift=None, keepdims=False, name=None):
        del shift, name
        wide = tf.cast(x, "float32") if x.dtype in (tf.float16, tf.bfloat16) else x
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(wide - mean), axes, keepdims=keepdims)
        mean = mean if keepdims else tf.squeeze(mean, axes)
        return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)

    with _exchange:
        _plain_moments.append(tf.nn.moments)
        tf.nn.moments = moments
    try:
        yield
    finally:
        with _exchange:
            # The last of several passes that ran side by side puts the first one back.
            plain = _plain_moments.pop()
            tf.nn.moments = plain if not _plain_moments else tf.nn.moments
