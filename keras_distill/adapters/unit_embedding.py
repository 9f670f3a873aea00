"""Vectors of length 1."""

from __future__ import annotations

import math

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="keras_distill")
class UnitEmbedding(layers.Layer):
    """A dense layer on all of a sample's features, scaled to length 1.

    Args:
        width: of the embedding. Default 128.

    Example:
        >>> kd.adapters.UnitEmbedding(128)(features)

    Source:
        Tian, Krishnan, Isola 2020, Contrastive representation distillation.
    """

    def __init__(self, width: int = 128, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.width = width

    def build(self, input_shape: tuple):
        """Make the dense layer."""
        self.dense = layers.Dense(self.width, name="dense")
        self.dense.build((input_shape[0], math.prod(input_shape[1:])))

    def call(self, inputs):
        """Give `(B, width)`."""
        flat = ops.reshape(inputs, (ops.shape(inputs)[0], math.prod(inputs.shape[1:])))
        vectors = self.dense(flat)
        squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
        # Zero has no direction; it stays zero, with a finite slope.
        return vectors / ops.sqrt(ops.where(squares > 0, squares, 1.0))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Give one vector a sample."""
        return (input_shape[0], self.width)

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "width": self.width}
