"""Adaptive average pooling."""

import keras
import numpy as np
from keras import ops

from keras_distill._backend.number_checks import check_integers
from keras_distill.adapters.adapter import Adapter


@keras.saving.register_keras_serializable(package="keras_distill")
class AveragePool(Adapter):
    """Average a map or a sequence over adaptive windows, down to any size.

    Output position `i` of `n` averages the input positions from `floor(i N / n)` to
    `ceil((i + 1) N / n)` of `N`, axis by axis. Keras's own adaptive pooling fails in a
    traced function when the output is one pixel and the input size is even (3.15.1).

    Args:
        size: output size of each spatial axis.

    Raises:
        ValueError: a sequence has a mask; raised by a call.

    Example:
        >>> kd.adapters.AveragePool((4, 4))(maps)
    """

    def __init__(self, size: tuple[int, ...], **kwargs):
        super().__init__(**kwargs)
        check_integers(1, **{f"size[{i}]": n for i, n in enumerate(size)})
        self.size = tuple(size)

    def call(self, inputs, mask=None):
        """Pool `(B, H, W, C)` to `(B, h, w, C)`, `(B, L, D)` to `(B, l, D)`."""
        if mask is not None:
            raise ValueError(
                f"A sequence of {inputs.shape[1]} steps with a mask can't be pooled to "
                f"{self.size[0]}: windows would mix real steps with padding. Tap layers "
                "of one length, or pass an adapter layer that takes the mask."
            )
        for axis, target in enumerate(self.size, start=1):
            if inputs.shape[axis] != target:
                windows = ops.convert_to_tensor(_windows(inputs.shape[axis], target))
                windows = ops.cast(windows, inputs.dtype)
                pooled = ops.tensordot(inputs, windows, axes=[[axis], [0]])
                inputs = ops.moveaxis(pooled, -1, axis)
        return inputs

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], *self.size, input_shape[-1])


def _windows(size: int, target: int) -> np.ndarray:
    """Return the averaging matrix, `(size, target)`."""
    matrix = np.zeros((size, target), "float32")
    for i in range(target):
        start, stop = i * size // target, -(-(i + 1) * size // target)
        matrix[start:stop, i] = 1 / (stop - start)
    return matrix
