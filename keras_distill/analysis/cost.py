"""Cost of a model: parameters, multiplications, time."""

import dataclasses
import math
import statistics
import time

import keras
from keras import layers

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill._backend.number_checks import check_integers
from keras_distill.taps import recording, tracing


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a model at inference.

    Args:
        parameters: number of weights; shared weights count once.
        multiplications: multiply-accumulate operations per sample.
        seconds_per_image: median time of compiled inference, in seconds; None if it
            was not measured.

    Example:
        >>> kd.analysis.cost(student, images[:256]).multiplications
    """

    parameters: int
    multiplications: int
    seconds_per_image: float | None = None


def cost(model: keras.Model, samples=None, repeats: int = 20) -> Cost:
    """Count the parameters and multiplications of a model, and time its inference.

    Multiplications are those of kernels with their inputs, derived from shapes without
    running the model:

    - dense, convolution: kernel size times output positions
    - transposed convolution: kernel size times input positions
    - separable convolution: both kernels' sizes times output positions
    - einsum: kernel size times input axes that the kernel lacks

    for each call of such a layer at any depth, including those with zero padding. Other
    operations are not counted: normalization, activations, pooling, recurrent cells, and
    products of two activations as in attention.

    Args:
        model: any Keras model; for a distiller pass `distiller.student`.
        samples: one batch of inputs, `(B, H, W, C)` or as the model expects; it is timed
            as a whole. Default None: not timed.
        repeats: number of timed runs of the batch, after one warm-up run; 0 to use only
            its shape. Default 20.

    Returns:
        A `Cost`.

    Raises:
        ValueError: the input shape is not known, the batch is empty, or `repeats` is
            below 0.

    Example:
        >>> kd.analysis.cost(kd.models.mlp((28, 28, 1), 10, units=(30, 30)))
        Cost(parameters=24790, multiplications=24720, seconds_per_image=None)

    Source:
        The columns of Romero et al. 2015, FitNets: hints for thin deep nets, table 1.
    """
    if samples is not None:
        _check_arguments(samples, repeats)
    inputs = tracing.input_of(model) if samples is None else samples
    if inputs is None:
        raise ValueError(
            f"The input shape of the model '{model.name}' is not known. Pass one batch "
            "of its inputs as `samples`."
        )
    # Counting multiplications builds the model.
    multiplications = _multiplications(model, inputs)
    timed = samples is not None and repeats > 0
    seconds = _seconds_per_image(model, samples, repeats) if timed else None
    return Cost(model.count_params(), multiplications, seconds)


def _check_arguments(samples, repeats: int) -> None:
    for leaf in keras.tree.flatten(samples):
        if not hasattr(leaf, "shape") or not len(leaf):
            raise ValueError(
                "Expected `samples` to be one batch of the model's inputs that is not "
                f"empty, such as data.test.images[:100]; got {type(leaf).__name__} of "
                f"shape {getattr(leaf, 'shape', None)}."
            )
    check_integers(0, repeats=repeats)


def _multiplications(model: keras.Model, inputs) -> int:
    if not all(layer.built for layer in flatten_layers(model)):
        # Keras runs an unbuilt layer twice at its first call.
        tracing.trace_as_declared(lambda x: model(x, training=False), inputs)
    counted = [layer for layer in flatten_layers(model) if isinstance(layer, _COUNTED)]
    runs = []

    def run(inputs):
        with recording.record(counted, model=model) as calls:
            outputs = model(inputs, training=False)
        runs.append(
            sum(
                _multiplications_of_call(layer, tuple(x.shape), tuple(y.shape))
                for layer in counted
                for x, y in calls[id(layer)]
            )
        )
        return outputs

    tracing.trace_as_declared(run, inputs)
    return runs[-1]


_CONVOLUTIONS = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DENSE = (layers.Dense, layers.EinsumDense)
_COUNTED = _DENSE + _CONVOLUTIONS + _SEPARABLE + _TRANSPOSED


def _multiplications_of_call(layer: keras.Layer, inputs: tuple, outputs: tuple) -> int:
    """Count one call of a layer from the shapes of its inputs and outputs."""
    if isinstance(layer, layers.EinsumDense):
        return _product(layer, layer.kernel.shape + _einsum_axes(layer, inputs))
    if isinstance(layer, layers.Dense):
        return _product(layer, layer.kernel.shape + outputs[1:-1])
    if isinstance(layer, _SEPARABLE):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        positions = _positions(layer, outputs)
        return sum(_product(layer, kernel.shape + positions) for kernel in kernels)
    shape = inputs if isinstance(layer, _TRANSPOSED) else outputs
    return _product(layer, layer.kernel.shape + _positions(layer, shape))


def _positions(layer: keras.Layer, shape: tuple) -> tuple:
    return shape[1:-1] if layer.data_format == "channels_last" else shape[2:]


def _einsum_axes(layer: keras.Layer, shape: tuple) -> tuple:
    """Return the sizes of the input axes that the kernel lacks, without the batch."""
    labels, kernel = layer.equation.split("->")[0].split(",")
    unnamed = len(shape) - len(labels.replace("...", ""))
    labels = labels.replace("...", "." * unnamed)
    axes = zip(labels[1:], shape[1:], strict=True)
    return tuple(size for label, size in axes if label not in kernel)


def _product(layer: keras.Layer, sizes: tuple) -> int:
    if None in sizes:
        raise ValueError(
            f"Counting multiplications needs known sizes; the layer '{layer.name}' has "
            f"sizes {sizes}. Pass one batch of inputs as `samples`, or fix the shape in "
            "`keras.Input`."
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
