"""Averages over windows, down to any size."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable(package="keras_distill")
class AveragePool(layers.Layer):
    """Average a map or a sequence over windows that fill it, down to any size.

    Place `i` of `n` averages the places from `floor(i N / n)` to `ceil((i + 1) N / n)`
    of `N`, axis by axis. Keras's own adaptive pooling fails in a trace when a target is
    one pixel and the size is even (3.15.1).

    Args:
        size: target of each spatial axis.

    Example:
        >>> kd.adapters.AveragePool((4, 4))(maps)
    """

    def __init__(self, size: tuple[int, ...], **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.size = tuple(size)

    def call(self, inputs):
        """Pool `(B, H, W, C)` to `(B, h, w, C)`, `(B, L, D)` to `(B, l, D)`."""
        for axis, target in enumerate(self.size, start=1):
            if inputs.shape[axis] != target:
                windows = ops.convert_to_tensor(_windows(inputs.shape[axis], target))
                windows = ops.cast(windows, inputs.dtype)
                pooled = ops.tensordot(inputs, windows, axes=[[axis], [0]])
                inputs = ops.moveaxis(pooled, -1, axis)
        return inputs

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Give the target size between batch and channels."""
        return (input_shape[0], *self.size, input_shape[-1])

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "size": self.size}


def _windows(size: int, target: int) -> np.ndarray:
    """Give the averaging matrix, `(size, target)`."""
    matrix = np.zeros((size, target), "float32")
    for place in range(target):
        start, stop = place * size // target, -(-(place + 1) * size // target)
        matrix[start:stop, place] = 1 / (stop - start)
    return matrix
