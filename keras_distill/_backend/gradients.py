"""Gradients, which each backend computes in its own way."""

import contextlib
from collections.abc import Callable

import keras
from keras import layers, ops

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill._backend.replaced_methods import replaced


def custom_gradient(function: Callable) -> Callable:
    """Differentiate a function by its own rule, in the same way on every backend.

    Stands in for `keras.ops.custom_gradient`, which passes the upstream gradient to the
    rule in a different way on each backend, and supports one output on torch.

    Args:
        function: from tensors to one tensor and a rule: a function from the gradient
            with respect to that tensor to that with respect to each input.

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


def by_input(function: Callable, inputs, model: keras.Layer | None = None):
    """Run a function and differentiate scalars that it returns by its input.

    The gradients can be differentiated again, by the weights that the function uses: a
    loss on them costs a second pass backwards through the first one. The function runs
    once; on JAX once more for each scalar, which the compiler merges into one run.

    Stands in for `keras.ops.grad`, for which keras-team/keras issue 22442 asks.

    Args:
        function: from inputs to a dict of scalars, and whatever else it computed.
        inputs: a tensor.
        model: what the function runs, whose variables it may update. Default: none.

    Returns:
        The dict with a gradient in place of each scalar, and the rest.
    """
    run = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}
    return run[keras.backend.backend()](function, inputs, model)


def _tensorflow(function, inputs, model):
    import tensorflow as tf

    with _moments_differentiable_twice(model), tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        scalars, rest = function(inputs)
    return {name: tape.gradient(x, inputs) for name, x in scalars.items()}, rest


def _torch(function, inputs, model):
    import torch

    inputs = inputs.detach().requires_grad_(True)
    with torch.enable_grad():
        scalars, rest = function(inputs)
        return {
            name: torch.autograd.grad(x, inputs, create_graph=True)[0]
            for name, x in scalars.items()
        }, rest


def _jax(function, inputs, model):
    import jax

    # An update inside a differentiation must not leave it, so the run that updates the
    # variables is another.
    variables = [] if model is None else model.variables
    start = [(variable, variable.value) for variable in variables]

    def score(inputs, name):
        with keras.StatelessScope(start):
            return function(inputs)[0][name]

    with keras.StatelessScope(start):
        names = list(jax.eval_shape(lambda x: function(x)[0], inputs))
    gradients = {name: jax.grad(score)(inputs, name) for name in names}
    # This run is the last, as a layer's `add_loss` is that of its last call.
    return gradients, function(inputs)[1]


def forget_gradients(model) -> None:
    """Drop the gradients that torch leaves on the variables of a model."""
    if keras.backend.backend() == "torch":
        for variable in model.variables:
            variable.value.grad = None


@contextlib.contextmanager
def _moments_differentiable_twice(model):
    """Correct second derivatives through a model's normalization on TensorFlow.

    `tf.nn.moments` stops the gradient of the mean inside the variance. Value and gradient
    stay right, the gradient of the gradient does not. The mean of centered inputs is
    constant, so that nothing is lost where it is stopped.

    Stands in for moments that TensorFlow differentiates twice (tensorflow pull request
    24508 questions the stop), and for public hooks of `BatchNormalization._moments` and
    `GroupNormalization._apply_normalization`, for which no public issue asks. A custom
    layer should call `ops.mean` and `ops.var` instead of `ops.moments`.
    """
    kinds = (
        (layers.BatchNormalization, "_moments", _centered_moments),
        (layers.GroupNormalization, "_apply_normalization", _centered_groups),
        (layers.LayerNormalization, "call", _centered_call),
    )
    parts = [] if model is None else flatten_layers(model)
    with contextlib.ExitStack() as stack:
        for kind, name, make in kinds:
            found = [x for x in parts if isinstance(x, kind)]
            stack.enter_context(replaced(found, name, make))
        yield


def _centered_moments(method, layer):
    def moments(inputs, mask):
        if mask is not None or layer.synchronized:
            return method(inputs, mask)
        rank = len(inputs.shape)
        axes = [i for i in range(rank) if i != layer.axis % rank]
        mean, centered = _centered(inputs, axes)
        rest, variance = method(centered, None)
        return ops.cast(ops.squeeze(mean, axes), rest.dtype) + rest, variance

    return moments


def _centered_groups(method, layer):
    def apply(inputs, input_shape):
        group = len(inputs.shape) - 2 if layer.axis == -1 else layer.axis
        axes = [i for i in range(1, len(inputs.shape)) if i != group]
        return method(ops.cast(_centered(inputs, axes)[1], inputs.dtype), input_shape)

    return apply


def _centered_call(method, layer):
    def call(inputs):
        return method(_centered(inputs, layer.axis)[1])

    return call


def _centered(inputs, axes) -> tuple:
    """Return the mean over some axes, and the inputs without it, in float32 or wider."""
    wide = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    mean = ops.mean(wide, axes, keepdims=True)
    return mean, wide - mean
