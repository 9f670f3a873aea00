"""A trained temperature, appended to logits."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_above, check_in
from keras_distill.adapters.adapter import Adapter


@keras.saving.register_keras_serializable(package="keras_distill")
class LearnedTemperature(Adapter):
    r"""Append a trained temperature, one for all samples, to logits.

    .. math::

        T = \mathrm{lowest} + \mathrm{span} \cdot \mathrm{sigmoid}(a)

    with a trained from 1, as in the source.

    Args:
        lowest: temperature, above 0. Default 1.
        span: of the temperatures, 0 or more. Default 20.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> kd.adapters.LearnedTemperature()(logits)  # (B, K) to (B, K + 1)

    Source:
        Li et al. 2023, Curriculum temperature for knowledge distillation.
    """

    def __init__(self, lowest: float = 1.0, span: float = 20.0, **kwargs):
        super().__init__(**kwargs)
        check_above(0, lowest=lowest)
        check_in(0, span=span)
        self.lowest = lowest
        self.span = span

    def build(self, input_shape: tuple) -> None:
        """Create a."""
        self.raw = self.add_weight(shape=(), initializer="ones", name="raw")

    @property
    def temperature(self):
        """T, a scalar."""
        return self.lowest + self.span * ops.sigmoid(ops.convert_to_tensor(self.raw))

    def call(self, inputs):
        """Return `(..., K + 1)`."""
        column = ops.cast(self.temperature, inputs.dtype)
        column = ops.broadcast_to(column, (*ops.shape(inputs)[:-1], 1))
        return ops.concatenate([inputs, column], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        channels = input_shape[-1]
        return (*input_shape[:-1], None if channels is None else channels + 1)
