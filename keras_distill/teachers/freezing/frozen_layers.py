"""What stands in a frozen model where batch normalisation was."""

from __future__ import annotations

import keras
from keras import ops


class InferenceNormalization(keras.Layer):
    """A batch normalisation whose statistics no longer move.

    Scale and offset are kept as `gamma` and `beta`, `(C,)`, as losses on margins ask
    for them.

    Args:
        channels: C.
    """

    stands_for_batch_normalization = True

    def __init__(self, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.supports_masking = True

    def build(self, input_shape):
        """Make the statistics."""
        del input_shape
        self.gamma = self._constant("gamma", "ones")
        self.beta = self._constant("beta", "zeros")

    def compute_output_shape(self, input_shape):
        """Give the shape of the input."""
        return input_shape

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "channels": self.channels}

    def _constant(self, name, initializer):
        return self.add_weight(
            shape=(self.channels,),
            name=name,
            initializer=initializer,
            dtype=keras.backend.result_type(self.variable_dtype, "float32"),
            trainable=False,
            autocast=False,
        )


@keras.saving.register_keras_serializable(package="keras_distill")
class FoldedNormalization(InferenceNormalization):
    """A normalisation that was folded into the layer in front: gives what it is given.

    Args:
        channels: C.
    """

    is_folded = True

    def call(self, inputs, mask=None):
        """Give the input, which is normalised already."""
        del mask
        return inputs


@keras.saving.register_keras_serializable(package="keras_distill")
class FrozenNormalization(InferenceNormalization):
    """A normalisation as one multiplication and one addition.

        y = scale_c x + offset_c

    Args:
        channels: C.
        axis: of the channels.
    """

    def __init__(self, channels: int, axis: int = -1, **kwargs):
        super().__init__(channels, **kwargs)
        self.axis = axis

    def build(self, input_shape):
        """Make statistics and constants."""
        super().build(input_shape)
        self.scale = self._constant("scale", "ones")
        self.offset = self._constant("offset", "zeros")

    def call(self, inputs, mask=None):
        """Normalise `(..., C, ...)`."""
        del mask
        shape = [1] * len(inputs.shape)
        shape[self.axis] = self.channels
        scale, offset = (
            ops.reshape(ops.cast(x, inputs.dtype), shape)
            for x in (self.scale, self.offset)
        )
        return inputs * scale + offset

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "axis": self.axis}
