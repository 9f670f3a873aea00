"""A linear connector with batch normalization."""

import keras
from keras import layers

from keras_distill._backend.number_checks import check_integers
from keras_distill.adapters.adapter import Adapter, linear


@keras.saving.register_keras_serializable(package="keras_distill")
class Connector(Adapter):
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
        super().__init__(**kwargs)
        check_integers(1, channels=channels)
        self.channels = channels

    def build(self, input_shape: tuple):
        policy = {"dtype": self.dtype_policy}
        self.projection = linear(
            self.channels, input_shape, use_bias=False, name="projection", **policy
        )
        self.norm = layers.BatchNormalization(name="norm", **policy)
        self.projection.build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, inputs, training=None, mask=None):
        """Return `(..., channels)`; masked steps are left out of the statistics."""
        return self.norm(self.projection(inputs), training=training, mask=mask)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.channels)
