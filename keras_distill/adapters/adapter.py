"""Base of adapters, and the linear layer that several of them have."""

import keras
from keras import layers

from keras_distill._backend.configuration import arguments

# Maps are `(B, H, W, C)` here, whatever `keras.config.image_data_format` is.
LAST = "channels_last"


class Adapter(layers.Layer):
    """A layer that computes in float32 by default and is configured by its arguments.

    Layers inside it get its `dtype_policy`; without one they would take the global policy.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        # The layers inside leave masked steps out of their statistics.
        self.supports_masking = True

    def get_config(self) -> dict:
        return {**arguments(self, Adapter), **super().get_config()}


def linear(channels: int, shape: tuple, size: int = 1, **kwargs) -> keras.Layer:
    """Create a convolution for a map `(B, H, W, C)`, a dense layer for other shapes."""
    if len(shape) != 4:
        return layers.Dense(channels, **kwargs)
    kwargs |= {"padding": "valid" if size == 1 else "same", "data_format": LAST}
    return layers.Conv2D(channels, size, **kwargs)
