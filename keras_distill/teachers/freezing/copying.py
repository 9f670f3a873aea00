"""Copies of a model's layers in inference form, with weights of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import keras
import numpy as np
from keras import layers

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps.layer_paths import FOLDED
from keras_distill.teachers.freezing.folding import is_normalization
from keras_distill.teachers.freezing.frozen_layers import (
    FoldedNormalization,
    FrozenNormalization,
    InferenceNormalization,
)

# What these do, they do in training alone.
_IDLE = (
    *(layers.Dropout, layers.AlphaDropout, layers.GaussianDropout),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.GaussianNoise, layers.ActivityRegularization),
)
_SEPARABLE = layers.SeparableConv1D, layers.SeparableConv2D
_DEPTHWISE = layers.DepthwiseConv1D, layers.DepthwiseConv2D
_TRANSPOSED = layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose


class Copier:
    """Copies a functional model, layer by layer, each layer once.

    Args:
        graphs: of the model and those in it, by the model's `id`.
        folds: layers, each with the normalisation to fold into it.
        kept: `id`s of layers that stay as they are.
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
        """Give the copy of a model, built, with its weights."""
        copy = self._model(model)
        for new, old in self.pairs:
            _fill(new, old, self.norms.get(id(old)))
        copy.trainable = False
        return copy

    def _model(self, model):
        graph = self.graphs[id(model)]
        inputs = keras.tree.map_structure(_input_like, graph.input)
        return keras.models.clone_model(
            graph, input_tensors=inputs, clone_function=self._operation
        )

    def _operation(self, operation):
        if id(operation) in self.copies:
            return self.copies[id(operation)]
        if id(operation) in self.graphs:
            copy = self._model(operation)
        else:
            copy = self._made(operation)
            if isinstance(copy, keras.Layer):
                _set_dtype(copy, self.dtype)
                self.pairs.append((copy, operation))
        self.copies[id(operation)] = copy
        return copy

    def _made(self, operation):
        """Make what stands for an operation, not built yet."""
        if id(operation) in self.kept:
            return _again(operation)
        if id(operation) in self.norms:
            return _with_bias(operation)
        if is_normalization(operation):
            given = {"name": operation.name, "dtype": operation.dtype_policy}
            channels = operation.moving_mean.shape[0]
            if id(operation) in self.folded:
                return FoldedNormalization(channels, **given)
            return FrozenNormalization(channels, operation.axis, **given)
        if type(operation) in _IDLE:
            return layers.Identity(name=operation.name, dtype=operation.dtype_policy)
        return _again(operation)


def _input_like(tensor):
    """Make an input from one of a model's, which Keras's own cloning would rename."""
    layer = tensor._keras_history.operation
    return layers.InputLayer.from_config(layer.get_config()).output


def _again(operation):
    """Make an operation from its arguments."""
    # The model is here already, so that nothing new is let in.
    trusted = {"safe_mode": False} if isinstance(operation, layers.Lambda) else {}
    try:
        return operation.__class__.from_config(operation.get_config(), **trusted)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The layer '{operation.name}' ({type(operation).__name__}) can't be copied: "
            f"{error} Give its class a get_config that has all its arguments."
        ) from error


def _with_bias(layer):
    """Make a layer for a folded kernel; its value is another, and so is its name."""
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


def _fill(new, old, norm) -> None:
    """Give a layer the weights of its original, the normalisation after it included."""
    if norm is not None:
        _fold(new, old, norm)
    elif isinstance(new, InferenceNormalization) and is_normalization(old):
        _note_statistics(new, old)
    else:
        for part, original in zip(
            flatten_layers(new), flatten_layers(old), strict=True
        ):
            weights = {}
            original.save_own_variables(weights)
            part.load_own_variables(weights)


def _fold(new, old, norm) -> None:
    """Fold y = scale (W x + b) + offset into one kernel and bias."""
    scale, offset = _scale_and_offset(norm)
    bias = _array(old.bias) if old.use_bias else 0.0
    new.bias.assign(scale * bias + offset)
    if isinstance(old, _SEPARABLE):
        new.depthwise_kernel.assign(old.depthwise_kernel)
        new.pointwise_kernel.assign(_array(old.pointwise_kernel) * scale)
        return
    kernel = _array(old.kernel)
    if isinstance(old, _TRANSPOSED):
        # (..., filters, inputs)
        scale = scale[:, None]
    elif isinstance(old, _DEPTHWISE):
        # (..., inputs, multiplier)
        scale = scale.reshape(kernel.shape[-2:])
    new.kernel.assign(kernel * scale)


def _note_statistics(new, norm) -> None:
    """Give what stands for a normalisation its statistics, and its constants."""
    ones = np.ones(norm.moving_mean.shape)
    new.gamma.assign(ones if norm.gamma is None else _array(norm.gamma))
    new.beta.assign(0.0 * ones if norm.beta is None else _array(norm.beta))
    if isinstance(new, FrozenNormalization):
        scale, offset = _scale_and_offset(norm)
        new.scale.assign(scale)
        new.offset.assign(offset)


def _scale_and_offset(norm) -> tuple[np.ndarray, np.ndarray]:
    """Give scale and offset, `(C,)` in float64, by which y = scale x + offset."""
    scale = 1.0 / np.sqrt(_array(norm.moving_variance) + norm.epsilon)
    if norm.gamma is not None:
        scale = scale * _array(norm.gamma)
    offset = -scale * _array(norm.moving_mean)
    if norm.beta is not None:
        offset = offset + _array(norm.beta)
    return scale, offset


def _array(weights) -> np.ndarray:
    weights = keras.ops.convert_to_tensor(weights)
    return np.asarray(keras.ops.convert_to_numpy(weights), "float64")
