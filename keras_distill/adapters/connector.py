"""A linear connector with batch normalization."""

import keras
from keras import layers


@keras.saving.register_keras_serializable(package="keras_distill")
class Connector(layers.Layer):
    """A 1x1 convolution without bias, followed by batch normalization.

    Maps pre-activation values to the teacher's channels, for methods that compare their
    signs. Vectors and sequences get a dense layer instead of the convolution.

    Args:
        channels: number of the teacher's channels.

    Example:
        >>> kd.adapters.Connector(64)(maps)

    Source:
        Heo et al. 2019, Knowledge transfer via distillation of activation boundaries.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.channels = channels

    def build(self, input_shape: tuple):
        """Create the layers."""
        self.projection = (
            layers.Conv2D(self.channels, 1, use_bias=False, name="projection")
            if len(input_shape) == 4
            else layers.Dense(self.channels, use_bias=False, name="projection")
        )
        self.norm = layers.BatchNormalization(name="norm")
        self.projection.build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, inputs, training=None):
        """Return `(..., channels)`."""
        return self.norm(self.projection(inputs), training=training)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the input's shape with the teacher's channels."""
        return (*input_shape[:-1], self.channels)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "channels": self.channels}
