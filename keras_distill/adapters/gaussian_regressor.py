"""A regressor that predicts a mean and a variance."""

import keras
import numpy as np
from keras import ops

from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.adapters.adapter import Adapter, linear


@keras.saving.register_keras_serializable(package="keras_distill")
class GaussianRegressor(Adapter):
    """Predict the mean of a Gaussian at each position, and one variance per channel.

    The mean comes from three 1x1 convolutions (dense layers for vectors and sequences)
    with ReLU in between; the variance is `softplus(a_c) + 1e-5` with a learned `a_c`.

    Args:
        channels: C, number of the teacher's channels.
        start: variance before training. Default 5.

    Raises:
        ValueError: `start` is not 1e-4 to 500, or there are no channels.

    Example:
        >>> mean, variance = ops.split(kd.adapters.GaussianRegressor(64)(maps), 2, -1)

    Source:
        Ahn et al. 2019, Variational information distillation for knowledge transfer.
    """

    def __init__(self, channels: int, *, start: float = 5.0, **kwargs):
        super().__init__(**kwargs)
        check_integers(1, channels=channels)
        check_in(1e-4, 500, start=start)
        self.channels = channels
        self.start = start

    def build(self, input_shape: tuple):
        self.steps, shape = [], input_shape
        for name in ("hidden1", "hidden2", "mean"):
            activation = None if name == "mean" else "relu"
            kind = {"activation": activation, "dtype": self.dtype_policy}
            step = linear(self.channels, shape, name=name, **kind)
            step.build(shape)
            self.steps.append(step)
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
        return (*input_shape[:-1], 2 * self.channels)
