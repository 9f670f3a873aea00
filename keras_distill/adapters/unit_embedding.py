"""An embedding of norm 1."""

import math

import keras
from keras import layers, ops

from keras_distill._backend.number_checks import check_integers
from keras_distill.adapters.adapter import Adapter


@keras.saving.register_keras_serializable(package="keras_distill")
class UnitEmbedding(Adapter):
    """A dense layer on a sample's flattened features, scaled to Euclidean norm 1.

    Args:
        width: size of the embedding. Default 128.

    Raises:
        ValueError: when built, a size is unknown; in a call, a sequence has a mask.

    Example:
        >>> kd.adapters.UnitEmbedding(128)(features)

    Source:
        Tian, Krishnan, Isola 2020, Contrastive representation distillation.
    """

    def __init__(self, width: int = 128, **kwargs):
        super().__init__(**kwargs)
        check_integers(1, width=width)
        self.width = width

    def build(self, input_shape: tuple):
        if None in input_shape[1:]:
            raise ValueError(
                "UnitEmbedding flattens features, with a weight for each value, so every "
                f"size must be known; got {tuple(input_shape)}. Fix the input size, or "
                "tap a layer behind the pooling."
            )
        self.dense = layers.Dense(self.width, name="dense", dtype=self.dtype_policy)
        self.dense.build((input_shape[0], math.prod(input_shape[1:])))

    def call(self, inputs, mask=None):
        """Return `(B, width)`."""
        if mask is not None:
            raise ValueError(
                "UnitEmbedding flattens whole sequences, with a weight for each step, and "
                "does not take a mask: padding would count. Tap a layer behind the "
                "pooling, or pass an adapter layer that pools by the mask."
            )
        flat = ops.reshape(inputs, (ops.shape(inputs)[0], math.prod(inputs.shape[1:])))
        vectors = self.dense(flat)
        squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
        # A zero vector has no direction: it stays zero, with a finite gradient.
        return vectors / ops.sqrt(ops.where(squares > 0, squares, 1.0))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], self.width)
