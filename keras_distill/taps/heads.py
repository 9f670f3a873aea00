"""Heads: the last layer of a model, a matrix product from states to logits."""

import dataclasses
from typing import NamedTuple

import keras
from keras import ops

from keras_distill.taps.last_activations import SIGMOID, SOFTMAX, last_activation
from keras_distill.taps.layer_paths import find_layer
from keras_distill.taps.passes import forward
from keras_distill.taps.tap import Tap
from keras_distill.taps.tracing import input_of, trace


class Head(NamedTuple):
    """The weights of a last layer, in the dtype that it computes in.

    Args:
        kernel: `(D, V)`.
        bias: `(V,)`, or None.
        transposed: whether the kernel is `(V, D)`, as the table of an embedding.
    """

    kernel: object
    bias: object = None
    transposed: bool = False

    def logits(self, states):
        """Return logits `(N, V)` of states `(N, D)`."""
        states = ops.cast(states, self.kernel.dtype)
        product = "nd,vd->nv" if self.transposed else "nd,dv->nv"
        logits = ops.einsum(product, states, self.kernel)
        return logits if self.bias is None else logits + self.bias

    def of_classes(self, classes) -> "Head":
        """Return the head of some classes, in an order; None for all."""
        if classes is None:
            return self
        kernel = ops.take(self.kernel, classes, axis=0 if self.transposed else 1)
        bias = None if self.bias is None else ops.take(self.bias, classes)
        return Head(kernel, bias, self.transposed)

    def first(self, count: int | None) -> "Head":
        """Return the head of the first classes; None for all."""
        if count is None:
            return self
        kernel = self.kernel[:count] if self.transposed else self.kernel[:, :count]
        bias = None if self.bias is None else self.bias[:count]
        return Head(kernel, bias, self.transposed)

    def states_gradient(self, gradient):
        """Return the gradient w.r.t. the states, `(N, D)`, from that w.r.t. the logits."""
        gradient = ops.cast(gradient, self.kernel.dtype)
        product = "nv,vd->nd" if self.transposed else "nv,dv->nd"
        return ops.einsum(product, gradient, self.kernel)

    def kernel_factors(self, states, gradient) -> tuple:
        """Return `(rows, N)` and `(N, columns)`, whose product is the kernel's gradient."""
        factors = [ops.cast(x, self.kernel.dtype) for x in (states, gradient)]
        rows, columns = reversed(factors) if self.transposed else factors
        return ops.transpose(rows), columns


def head_of(model: keras.Layer, tap: Tap) -> Head:
    """Return the weights of the layer whose input is tapped, cast as the layer does."""
    layer = find_layer(model, tap.path)
    if isinstance(layer, keras.layers.Dense):
        return _cast(layer.compute_dtype, layer.kernel, layer.bias, False)
    dtype = layer.reverse_dtype or layer.compute_dtype
    if layer.tie_weights:
        return _cast(dtype, layer.embeddings, None, True)
    return _cast(dtype, layer.reverse_embeddings, None, False)


def _cast(dtype, kernel, bias, transposed) -> Head:
    kernel, bias = (
        None if x is None else ops.cast(ops.convert_to_tensor(x), dtype)
        for x in (kernel, bias)
    )
    return Head(kernel, bias, transposed)


def head_classes(model: keras.Layer, inputs, tap: Tap) -> int:
    """Return the number of classes V of the layer whose input is tapped, a head."""
    if tap.is_output or tap.is_gradient or tap.side != "input":
        raise _no_head(model, tap, "is not the input of a layer")
    layer = find_layer(model, tap.path)
    if obstacle := _obstacle(layer):
        raise _no_head(model, tap, f"is the input of '{layer.name}', {obstacle}")
    sides = tap, dataclasses.replace(tap, side="output")
    shapes = trace(lambda x: _tensors(model, x, sides), inputs)
    states, logits = (tuple(x.shape) for x in shapes)
    if states[:-1] != logits[:-1]:
        raise _no_head(
            model,
            tap,
            f"is the input of the lookup call of '{layer.name}', {states} to {logits}; "
            "to tap its reverse call, add call=1",
        )
    return logits[-1]


def _tensors(model, inputs, taps):
    _, tensors = forward(model, inputs, taps, training=False)
    return [tensors[tap] for tap in taps]


def _obstacle(layer) -> str:
    """Return what keeps a layer from being a head; empty if it is one."""
    kinds = keras.layers.Dense, keras.layers.ReversibleEmbedding
    # A subclass with its own `call` may compute anything.
    if not any(type(layer).call is kind.call for kind in kinds):
        return f"a {type(layer).__name__}"
    if getattr(layer, "activation", None) not in (None, keras.activations.linear):
        return f"a Dense with the activation '{layer.activation.__name__}'"
    if getattr(layer, "logit_soft_cap", None) is not None:
        return "which caps its logits"
    if layer.quantization_mode is not None:
        return f"which is quantized to {layer.quantization_mode}"
    return ""


def _no_head(model, tap: Tap, problem: str) -> ValueError:
    return ValueError(
        f"The tap '{tap}' of '{model.name}' {problem}. To compare logits in chunks, tap "
        "the input of the layer that returns them, a Dense without activation or a "
        "ReversibleEmbedding in reverse, as kd.Tap('head', side='input'); else compare "
        "the logits themselves by kd.losses.SoftTarget."
    )


def ends_in_logits(layer: keras.Layer | None) -> bool:
    """Whether a last layer is known to return numbers of any size, by no activation."""
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    return linear and hasattr(layer, "activation") and hasattr(layer, "kernel")


def sum_to_one(tensor) -> bool:
    """Whether all rows are probabilities of classes; those of 0 and 1 alone may be logits."""
    if len(tensor.shape) < 2 or tensor.shape[-1] == 1:
        return False
    wide = ops.cast(tensor, "float32")
    coarse = keras.backend.standardize_dtype(tensor.dtype) in ("float16", "bfloat16")
    gaps = ops.abs(ops.sum(wide, axis=-1) - 1.0)
    if bool(ops.any(wide < 0.0)) or bool(ops.any(gaps > (2e-2 if coarse else 1e-3))):
        return False
    return not bool(ops.all((wide == 0.0) | (wide == 1.0)))


def within_unit_interval(tensor) -> bool:
    """Whether all values lie between 0 and 1."""
    wide = ops.cast(tensor, "float32")
    return bool(ops.all((wide >= 0.0) & (wide <= 1.0)))


def lie_around(tensor, value: float) -> bool:
    """Whether some values, but not all, are larger than a number."""
    above = ops.cast(tensor, "float32") > value
    return bool(ops.any(above)) and not bool(ops.all(above))


def check_logits(
    model: keras.Model, role: str, inputs=None, tap: Tap | None = None
) -> None:
    """Check that no layer shows that an output of a model is of probabilities.

    Args:
        model: any model.
        role: names it in the error.
        inputs: specs of its inputs. Default: those that it declares; without any, nothing
            is checked.
        tap: of the output. Default: the only one.
    """
    inputs = input_of(model) if inputs is None else inputs
    outputs = getattr(model, "outputs", None) or ()
    if inputs is None or (tap is None and len(outputs) > 1):
        return
    found = last_activation(model, inputs, tap or Tap.output())
    if found in (SIGMOID, SOFTMAX):
        raise ValueError(
            f"The {role} '{model.name}' ends in probabilities (a {found}), but logits are "
            "expected: a softmax of a softmax teaches next to nothing. Pass "
            "kd.as_logits(model), a copy without its last activation, and use a loss with "
            "from_logits=True."
        )
