"""Layers that replace batch normalization in a frozen model."""

import keras
from keras import ops


class InferenceNormalization(keras.Layer):
    """A batch normalization with constant statistics, of C channels.

    Its scale and offset remain as `gamma` and `beta`, `(C,)`, for losses on margins.
    """

    stands_for_batch_normalization = True

    def __init__(self, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.supports_masking = True

    def build(self, input_shape):
        del input_shape
        self.gamma = self._constant("gamma", "ones")
        self.beta = self._constant("beta", "zeros")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
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
    """The identity, in place of a normalization that was folded into the layer before."""

    is_folded = True

    def call(self, inputs, mask=None):
        del mask
        return inputs


@keras.saving.register_keras_serializable(package="keras_distill")
class FrozenNormalization(InferenceNormalization):
    """A batch normalization along one axis, as `y = scale_c x + offset_c`."""

    def __init__(self, channels: int, axis: int = -1, **kwargs):
        super().__init__(channels, **kwargs)
        self.axis = axis

    def build(self, input_shape):
        super().build(input_shape)
        self.scale = self._constant("scale", "ones")
        self.offset = self._constant("offset", "zeros")

    def call(self, inputs, mask=None):
        del mask
        shape = [1] * len(inputs.shape)
        shape[self.axis] = self.channels
        scale, offset = (
            ops.reshape(ops.cast(x, inputs.dtype), shape)
            for x in (self.scale, self.offset)
        )
        return inputs * scale + offset

    def get_config(self) -> dict:
        return {**super().get_config(), "axis": self.axis}
