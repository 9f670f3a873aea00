"""Heads: the last layer of a model, a matrix product from states to logits."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import ops

from keras_distill import taps
from keras_distill.taps import Tap, tracing

_PROBABILITIES = "softmax", "sigmoid", "log_softmax"


class Head(NamedTuple):
    """The weights of a last layer, in the type that it computes in.

    Args:
        kernel: `(D, V)`.
        bias: `(V,)`, or None.
        transposed: whether the kernel is `(V, D)`, as the table of an embedding.
    """

    kernel: object
    bias: object = None
    transposed: bool = False

    def logits(self, states):
        """Give logits `(N, V)` of states `(N, D)`."""
        states = ops.cast(states, self.kernel.dtype)
        product = "nd,vd->nv" if self.transposed else "nd,dv->nv"
        logits = ops.einsum(product, states, self.kernel)
        return logits if self.bias is None else logits + self.bias

    def states_gradient(self, slopes):
        """Give the gradient by the states, `(N, D)`, of that by the logits, `(N, V)`."""
        slopes = ops.cast(slopes, self.kernel.dtype)
        product = "nv,vd->nd" if self.transposed else "nv,dv->nd"
        return ops.einsum(product, slopes, self.kernel)

    def kernel_factors(self, states, slopes) -> tuple:
        """Give `(rows of the kernel, N)` and `(N, columns)`, whose product is its gradient.

        Args:
            states: `(N, D)`.
            slopes: the gradient by the logits, `(N, V)`.
        """
        factors = [ops.cast(x, self.kernel.dtype) for x in (states, slopes)]
        rows, columns = reversed(factors) if self.transposed else factors
        return ops.transpose(rows), columns


def head_of(model: keras.Layer, tap: Tap) -> Head:
    """Give the weights of the layer whose input is tapped, cast as the layer would."""
    layer = taps.find_layer(model, tap.path)
    if isinstance(layer, keras.layers.Dense):
        return _in_type(layer.compute_dtype, layer.kernel, layer.bias, False)
    dtype = layer.reverse_dtype or layer.compute_dtype
    if layer.tie_weights:
        return _in_type(dtype, layer.embeddings, None, True)
    return _in_type(dtype, layer.reverse_embeddings, None, False)


def _in_type(dtype, kernel, bias, transposed) -> Head:
    kernel, bias = (
        None if x is None else ops.cast(ops.convert_to_tensor(x), dtype)
        for x in (kernel, bias)
    )
    return Head(kernel, bias, transposed)


def classes_of(model: keras.Layer, inputs, tap: Tap) -> int:
    """Give V of the layer whose input is tapped, once it is known to be a head.

    Args:
        model: student or teacher.
        inputs: specs of what it takes.
        tap: of the input of the layer that makes its logits.

    Raises:
        ValueError: the tap is of something else.
    """
    if tap.is_logits or tap.is_gradient or tap.side != "input":
        raise _no_head(model, tap, "is not the input of a layer")
    layer = taps.find_layer(model, tap.path)
    reason = _unfit(layer)
    if reason:
        raise _no_head(model, tap, f"is the input of '{layer.name}', {reason}")
    sides = tap, Tap(tap.path, tap.call)
    shapes = tracing.trace(lambda x: _shapes(model, x, sides), inputs)
    given, made = (tuple(x.shape) for x in shapes)
    if given[:-1] != made[:-1]:
        raise _no_head(
            model,
            tap,
            f"is the input of '{layer.name}' where it looks up, {given} to {made}, and "
            "not where it is used in reverse; say which call it is by call=1",
        )
    return made[-1]


def _shapes(model, inputs, sides):
    _, tapped = taps.forward(model, inputs, sides, training=False)
    return [tapped[side] for side in sides]


def _unfit(layer) -> str:
    """Say what keeps a layer from being a head; nothing if it is one."""
    kinds = keras.layers.Dense, keras.layers.ReversibleEmbedding
    # A subclass with a call of its own may do anything.
    if not any(type(layer).call is kind.call for kind in kinds):
        return f"a {type(layer).__name__}"
    if getattr(layer, "activation", None) not in (None, keras.activations.linear):
        return f"a Dense with the activation '{layer.activation.__name__}'"
    if getattr(layer, "logit_soft_cap", None) is not None:
        return "which caps its logits"
    if layer.quantization_mode is not None:
        return f"which is quantized to {layer.quantization_mode}"
    return ""


def _no_head(model, tap: Tap, what: str) -> ValueError:
    return ValueError(
        f"The tap '{tap}' of '{model.name}' {what}. To compare logits in chunks, tap the "
        "input of the layer that makes them, a Dense without activation or a "
        "ReversibleEmbedding in reverse, as kd.Tap('head', side='input'); else compare "
        "the logits themselves by kd.losses.SoftTarget."
    )


def gives_logits(model: keras.Model, layer: keras.Layer | None, role: str) -> None:
    """Refuse a model that ends in probabilities where a loss takes logits."""
    if ends_in_probabilities(layer):
        raise ValueError(
            f"The {role} '{model.name}' ends in probabilities (layer '{layer.name}'), but "
            "logits are meant: a softmax of a softmax teaches next to nothing. Take the "
            "activation off the last layer, and use a loss with from_logits=True."
        )


def ends_in_probabilities(layer: keras.Layer | None) -> bool:
    """Tell whether a last layer gives probabilities."""
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    return isinstance(layer, keras.layers.Softmax) or activation in _PROBABILITIES


def must_give_logits(model: keras.Model, role: str) -> None:
    """Refuse a model of known inputs that ends in probabilities."""
    inputs = tracing.input_of(model)
    if inputs is not None:
        gives_logits(model, taps.outline(model, inputs)[1], role)
