"""Copying a model's layers in inference form, with separate weights."""

from collections.abc import Collection, Mapping

import keras
import numpy as np
from keras import layers

from keras_distill._backend.files import to_numpy
from keras_distill._backend.keras_graphs import in_order_of_creation, nodes_of
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps.layer_paths import FOLDED, children_of
from keras_distill.teachers.freezing.folding import is_normalization
from keras_distill.teachers.freezing.frozen_layers import (
    FoldedNormalization,
    FrozenNormalization,
    InferenceNormalization,
)

# Layers that are identities in inference.
_IDENTITIES = (
    *(layers.Dropout, layers.AlphaDropout, layers.GaussianDropout),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.GaussianNoise, layers.ActivityRegularization),
)
# Characters of an error of Keras that are shown.
_LONGEST = 300
_SEPARABLE = layers.SeparableConv1D, layers.SeparableConv2D
_DEPTHWISE = layers.DepthwiseConv1D, layers.DepthwiseConv2D
_TRANSPOSED = layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose


class Copier:
    """Copies a functional model, layer by layer, each layer once.

    Args:
        graphs: of the model and of models nested in it, by the model's `id`.
        folds: pairs of a layer and the normalization to fold into it.
        kept: `id`s of layers to copy unchanged.
        dtype: dtype policy of the copies; None for those of the layers.
    """

    def __init__(
        self,
        graphs: Mapping[int, keras.Model],
        folds: Collection[tuple[keras.Layer, keras.Layer]],
        kept: Collection[int],
        dtype,
    ):
        self.graphs = graphs
        self.norms = {id(layer): norm for layer, norm in folds}
        self.folded = {id(norm) for _, norm in folds}
        self.kept = kept
        self.dtype = dtype
        self.copies = {}
        self.pairs = []

    def copy(self, model: keras.Model) -> keras.Model:
        """Return a built copy of a model, with its weights."""
        copy = self._model(model)
        for new, old in self.pairs:
            _copy_weights(new, old, self.norms.get(id(old)))
        return copy

    def _model(self, model):
        graph, copies = self.graphs[id(model)], {}
        # Keras's own cloning renames inputs and calls shared layers in another order.
        for node in in_order_of_creation(nodes_of(graph)):
            if node.is_input:
                outputs = _same(node.operation).output
            else:
                args, kwargs = node.arguments.fill_in(copies)
                outputs = self._operation(node.operation)(*args, **kwargs)
            outputs = keras.tree.flatten(outputs)
            copies |= zip(map(id, node.outputs), outputs, strict=True)
        ends = keras.tree.map_structure(
            lambda x: copies[id(x)], (graph.input, graph.output)
        )
        copy = keras.Model(*ends, name=graph.name)
        # The copy has neither the attributes of the model nor the order of its layers.
        copy.original_names = {
            part: layer.name for part, layer in children_of(model) if part != layer.name
        }
        return copy

    def _operation(self, operation):
        if id(operation) in self.copies:
            return self.copies[id(operation)]
        if id(operation) in self.graphs:
            copy = self._model(operation)
        else:
            copy = self._replacement(operation)
            if isinstance(copy, keras.Layer):
                _set_dtype(copy, self.dtype)
                self.pairs.append((copy, operation))
        self.copies[id(operation)] = copy
        return copy

    def _replacement(self, operation):
        """Return an unbuilt operation to put in an operation's place."""
        if id(operation) in self.kept:
            return _same(operation)
        if id(operation) in self.norms:
            return _with_bias(operation)
        if is_normalization(operation):
            common = {"name": operation.name, "dtype": operation.dtype_policy}
            channels = operation.moving_mean.shape[0]
            if id(operation) in self.folded:
                return FoldedNormalization(channels, **common)
            return FrozenNormalization(channels, operation.axis, **common)
        if type(operation) in _IDENTITIES:
            # Its configuration is what it is created with, and takes no policy as such.
            policy = keras.dtype_policies.serialize(
                self.dtype or operation.dtype_policy
            )
            return layers.Identity(name=operation.name, dtype=policy)
        return _same(operation)


def _same(operation):
    """Create an operation with the same arguments."""
    try:
        if type(operation) is layers.Lambda:
            return _same_lambda(operation)
        return operation.__class__.from_config(operation.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The layer '{operation.name}' ({type(operation).__name__}) can't be copied: "
            f"{cause(error)} Add a get_config with all arguments to its class."
        ) from error


def _same_lambda(layer):
    """Create a Lambda of the same function; one of a configuration has lost its globals."""
    shape = layer.get_config().get("output_shape")
    common = {"name": layer.name, "dtype": layer.dtype_policy}
    if isinstance(shape, dict):
        shape = layer.compute_output_shape
    copy = layers.Lambda(layer.function, shape, layer.mask, layer.arguments, **common)
    copy.trainable = layer.trainable
    return copy


def cause(error: Exception) -> str:
    """Return in short why Keras could not create an object."""
    text = str(error)
    for lead in ("Exception encountered:", "Error encountered during deserialization:"):
        text = text.rpartition(lead)[2]
    text = " ".join(text.partition("Example:")[0].split())
    return f"{text.rstrip('.')}." if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _with_bias(layer):
    """Create a layer for a folded kernel; as its output differs, so does its name."""
    config = {**layer.get_config(), "name": layer.name + FOLDED, "use_bias": True}
    if "lora_rank" in config:
        config["lora_rank"] = None
    return type(layer).from_config(config)


def _set_dtype(layer, policy) -> None:
    if policy is None:
        return
    for part in flatten_layers(layer):
        quantized = getattr(part, "quantization_mode", None)
        if not quantized and keras.backend.is_float_dtype(part.compute_dtype):
            part.dtype_policy = policy


def _copy_weights(new, old, norm) -> None:
    """Copy a layer's weights, with the normalization after it folded in, if any."""
    if norm is not None:
        _fold(new, old, norm)
    elif isinstance(new, InferenceNormalization) and is_normalization(old):
        _copy_normalization(new, old)
    else:
        for part, original in zip(
            flatten_layers(new), flatten_layers(old), strict=True
        ):
            weights = {}
            original.save_own_variables(weights)
            # On JAX a step may delete arrays that two variables shared.
            weights = {name: np.array(to_numpy(x)) for name, x in weights.items()}
            part.load_own_variables(weights)


def _fold(new, old, norm) -> None:
    """Fold y = scale (W x + b) + offset into one kernel and bias."""
    scale, offset = _scale_and_offset(norm)
    bias = to_numpy(old.bias, "float64") if old.use_bias else 0.0
    new.bias.assign(scale * bias + offset)
    if isinstance(old, _SEPARABLE):
        new.depthwise_kernel.assign(old.depthwise_kernel)
        new.pointwise_kernel.assign(to_numpy(old.pointwise_kernel, "float64") * scale)
        return
    kernel = to_numpy(old.kernel, "float64")
    if isinstance(old, _TRANSPOSED):
        # (..., filters, inputs)
        scale = scale[:, None]
    elif isinstance(old, _DEPTHWISE):
        # (..., inputs, multiplier)
        scale = scale.reshape(kernel.shape[-2:])
    new.kernel.assign(kernel * scale)


def _copy_normalization(new, norm) -> None:
    """Copy gamma and beta of a normalization, and compute its scale and offset."""
    ones = np.ones(norm.moving_mean.shape)
    new.gamma.assign(ones if norm.gamma is None else to_numpy(norm.gamma, "float64"))
    new.beta.assign(0.0 * ones if norm.beta is None else to_numpy(norm.beta, "float64"))
    if isinstance(new, FrozenNormalization):
        scale, offset = _scale_and_offset(norm)
        new.scale.assign(scale)
        new.offset.assign(offset)


def _scale_and_offset(norm) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and offset, `(C,)` in float64, with y = scale x + offset."""
    scale = 1.0 / np.sqrt(to_numpy(norm.moving_variance, "float64") + norm.epsilon)
    if norm.gamma is not None:
        scale = scale * to_numpy(norm.gamma, "float64")
    offset = -scale * to_numpy(norm.moving_mean, "float64")
    if norm.beta is not None:
        offset = offset + to_numpy(norm.beta, "float64")
    return scale, offset
