"""What a model costs: parameters, multiplications, time."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time

import keras
from keras import layers

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps import recording, tracing


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a model costs at inference.

    Args:
        parameters: all weights, shared ones once.
        multiplications: multiply-accumulates of one sample.
        seconds_per_image: median time of compiled inference, in seconds; None if it
            was not measured.

    Example:
        >>> kd.analysis.cost(student, images[:256]).multiplications
    """

    parameters: int
    multiplications: int
    seconds_per_image: float | None = None


def cost(model: keras.Model, samples=None, repeats: int = 20) -> Cost:
    """Count a model's parameters and multiplications, and time its inference.

    Students are made to be small and fast, so their errors stand beside what they
    cost. Multiplications are those of kernels with their inputs, found from shapes
    without computing:

        dense, convolution        kernel size * output positions
        transposed convolution    kernel size * input positions
        separable convolution     both kernels' sizes * output positions
        einsum                    kernel size * input axes that the kernel lacks

    for every call of such a layer, however deep in the model, borders of zeros
    included. What else a model does is not counted: normalisation, activations,
    pooling, recurrent cells, products of two activations as in attention.

    Args:
        model: any Keras model; of a distiller give `distiller.student`.
        samples: one batch of inputs, `(B, H, W, C)` or whatever the model takes; it is
            timed as a whole. Default None: not timed.
        repeats: times the batch is run, after a first run that is not counted; 0 to
            take its size alone. Default 20.

    Returns:
        A `Cost`.

    Raises:
        ValueError: the size of an input is not known, the batch is empty, or `repeats`
            is below 0.

    Example:
        >>> kd.analysis.cost(kd.models.mlp((28, 28, 1), 10, units=(30, 30)))
        Cost(parameters=24790, multiplications=24720, seconds_per_image=None)

    Source:
        The columns of Romero et al. 2015, FitNets: hints for thin deep nets, table 1.
    """
    if samples is not None:
        _check(samples, repeats)
    inputs = tracing.input_of(model) if samples is None else samples
    if inputs is None:
        raise ValueError(
            f"The model '{model.name}' does not say what it takes; give one batch of "
            "its inputs as samples."
        )
    multiplications = _multiplications(model, inputs)
    timed = samples is not None and repeats > 0
    seconds = _seconds_per_image(model, samples, repeats) if timed else None
    return Cost(model.count_params(), multiplications, seconds)


def _check(samples, repeats: int) -> None:
    for leaf in keras.tree.flatten(samples):
        if not hasattr(leaf, "shape") or not len(leaf):
            raise ValueError(
                "samples is one batch of the model's inputs, with at least one in it, "
                f"as in samples=data.test.images[:100]; got {type(leaf).__name__} "
                f"of shape {getattr(leaf, 'shape', None)}."
            )
    if repeats < 0:
        raise ValueError(f"repeats is the number of timed runs, 0 or more: {repeats}.")


def _multiplications(model: keras.Model, inputs) -> int:
    if not all(layer.built for layer in flatten_layers(model)):
        # The first run of such a layer runs it once more to build it.
        tracing.trace(lambda x: model(x, training=False), inputs)
    counted = [x for x in flatten_layers(model) if _multiplies(x)]
    runs = []

    def run(inputs):
        with recording.record(counted) as calls:
            outputs = model(inputs, training=False)
        runs.append(
            sum(
                _of_call(layer, tuple(given.shape), tuple(made.shape))
                for layer in counted
                for given, made in calls[id(layer)]
            )
        )
        return outputs

    tracing.trace(run, inputs)
    return runs[-1]


_CONVOLUTIONS = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)


def _multiplies(layer: keras.Layer) -> bool:
    dense = (layers.Dense, layers.EinsumDense)
    return isinstance(layer, dense + _CONVOLUTIONS + _SEPARABLE + _TRANSPOSED)


def _of_call(layer: keras.Layer, given: tuple, made: tuple) -> int:
    """Count one call of a layer from the shapes of its input and output."""
    if isinstance(layer, layers.EinsumDense):
        return _product(layer, layer.kernel.shape + _einsum_axes(layer, given))
    if isinstance(layer, layers.Dense):
        return _product(layer, layer.kernel.shape + made[1:-1])
    if isinstance(layer, _SEPARABLE):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        places = _places(layer, made)
        return sum(_product(layer, kernel.shape + places) for kernel in kernels)
    shape = given if isinstance(layer, _TRANSPOSED) else made
    return _product(layer, layer.kernel.shape + _places(layer, shape))


def _places(layer: keras.Layer, shape: tuple) -> tuple:
    return shape[1:-1] if layer.data_format == "channels_last" else shape[2:]


def _einsum_axes(layer: keras.Layer, given: tuple) -> tuple:
    """Give the input's axes that the kernel lacks, without the batch."""
    labels, kernel = layer.equation.split("->")[0].split(",")
    unnamed = len(given) - len(labels.replace("...", ""))
    labels = labels.replace("...", "." * unnamed)
    axes = zip(labels[1:], given[1:], strict=True)
    return tuple(size for label, size in axes if label not in kernel)


def _product(layer: keras.Layer, sizes: tuple) -> int:
    if None in sizes:
        raise ValueError(
            f"Multiplications need sizes that are known, but the layer '{layer.name}' "
            f"works on {sizes}. Give one batch of inputs as samples, or fix the size "
            "in keras.Input."
        )
    return math.prod(sizes)


def _seconds_per_image(model: keras.Model, samples, repeats: int) -> float:
    model.predict_on_batch(samples)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.predict_on_batch(samples)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) / len(keras.tree.flatten(samples)[0])
