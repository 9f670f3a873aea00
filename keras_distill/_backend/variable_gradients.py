"""Gradients of several scalars by variables, of a run that assigns to nothing."""

from collections.abc import Callable, Sequence

import keras


def by_variables(
    before: Callable,
    function: Callable,
    variables: Sequence[keras.Variable],
    regularized: Sequence[keras.Variable] = (),
) -> tuple[dict, dict]:
    """Run a function and differentiate each scalar that it returns by variables.

    What the run assigns to variables, such as moving statistics and seeds, is dropped.

    Args:
        before: what is run first, outside of the gradient.
        function: from what `before` returned to a dict of scalars.
        variables: to differentiate by.
        regularized: those that have a regularizer, of which Keras takes the value from
            the scope of such a run alone. Default: none.

    Returns:
        The scalars, and for each a list of gradients, None where it does not depend on a
        variable.
    """
    run = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}
    held = [(variable, variable.value) for variable in regularized]
    return run[keras.backend.backend()](before, function, variables, held)


def _tensorflow(before, function, variables, held):
    import tensorflow as tf

    # Of a variable on several replicas, the first copy: its gradient needs no replica.
    copies = [_first_copy(variable.value) for variable in variables]
    held = [(variable, _first_copy(value)) for variable, value in held]
    with keras.StatelessScope([*held, *zip(variables, copies, strict=True)]):
        known = before()
        with tf.GradientTape(persistent=True) as tape:
            scalars = function(known)
    gradients = {
        name: [_dense(x) for x in tape.gradient(scalar, copies)]
        for name, scalar in scalars.items()
    }
    return scalars, gradients


def _first_copy(value):
    import tensorflow as tf

    return tf.distribute.get_strategy().experimental_local_results(value)[0]


def _dense(gradient):
    import tensorflow as tf

    return None if gradient is None else tf.convert_to_tensor(gradient)


def _torch(before, function, variables, held):
    import torch

    with keras.StatelessScope(held):
        with torch.no_grad():
            known = before()
        with torch.enable_grad():
            scalars = function(known)
    tensors = [variable.value for variable in variables]
    gradients = {}
    for name, scalar in scalars.items():
        found = [None] * len(tensors)
        if scalar.requires_grad:
            settings = {"retain_graph": True, "allow_unused": True}
            found = torch.autograd.grad(scalar, tensors, **settings)
        gradients[name] = list(found)
    return {name: x.detach() for name, x in scalars.items()}, gradients


def _jax(before, function, variables, held):
    import jax
    import jax.numpy as jnp

    def run(values):
        with keras.StatelessScope([*held, *zip(variables, values, strict=True)]):
            return function(before())

    scalars, pull_back = jax.vjp(run, [variable.value for variable in variables])
    zeros = {name: jnp.zeros_like(x) for name, x in scalars.items()}
    gradients = {
        name: pull_back(zeros | {name: jnp.ones_like(x)})[0]
        for name, x in scalars.items()
    }
    return scalars, gradients
