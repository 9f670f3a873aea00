"""A regressor that predicts a mean and a variance."""

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable(package="keras_distill")
class GaussianRegressor(layers.Layer):
    """Predict the mean of a Gaussian at each position, and one variance per channel.

    The mean comes from three 1x1 convolutions (dense layers for vectors and sequences)
    with ReLU in between; the variance is `softplus(a_c) + 1e-5` with a learned `a_c`.

    Args:
        channels: C, number of the teacher's channels.
        start: variance before training. Default 5.

    Example:
        >>> mean, variance = ops.split(kd.adapters.GaussianRegressor(64)(maps), 2, -1)

    Source:
        Ahn et al. 2019, Variational information distillation for knowledge transfer.
    """

    def __init__(self, channels: int, *, start: float = 5.0, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.channels = channels
        self.start = start

    def build(self, input_shape: tuple):
        """Create the layers and the raw variances."""
        make = (
            (lambda **kwargs: layers.Conv2D(self.channels, 1, **kwargs))
            if len(input_shape) == 4
            else (lambda **kwargs: layers.Dense(self.channels, **kwargs))
        )
        self.steps = [
            make(activation="relu", name="hidden1"),
            make(activation="relu", name="hidden2"),
            make(name="mean"),
        ]
        shape = input_shape
        for step in self.steps:
            step.build(shape)
            shape = (*input_shape[:-1], self.channels)
        raw = float(np.log(np.expm1(self.start - 1e-5)))
        self.raw_variance = self.add_weight(
            shape=(self.channels,),
            initializer=keras.initializers.Constant(raw),
            name="raw_variance",
        )

    def call(self, inputs):
        """Return mean and variance, concatenated to `(..., 2C)`."""
        mean = inputs
        for step in self.steps:
            mean = step(mean)
        variance = ops.softplus(self.raw_variance) + 1e-5
        return ops.concatenate([mean, ops.zeros_like(mean) + variance], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the input's shape with twice the teacher's channels."""
        return (*input_shape[:-1], 2 * self.channels)

    def get_config(self) -> dict:
        """Return the arguments."""
        config = {"channels": self.channels, "start": self.start}
        return {**super().get_config(), **config}
