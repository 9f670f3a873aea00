"""Logits in which all classes but those of a group are merged."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_distill._backend.number_checks import check_above


@keras.saving.register_keras_serializable(package="keras_distill")
class Merged(keras.Layer):
    r"""Logits of a group of classes, and one logit for all other classes together.

    At temperature T, its softmax is that of all logits, with the probabilities of the
    other classes summed:

    .. math::

        z_{\mathrm{rest}} = T \log \sum_{k \notin \mathrm{group}} \exp(z_k / T)

    Args:
        group: the classes to keep, in their new order.
        temperature: T of the sum. Default 1.

    Example:
        >>> ops.shape(kd.Merged([3, 5, 8])(logits))
        (32, 4)
    """

    def __init__(self, group: Sequence[int], temperature: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        check_above(0, temperature=temperature)
        self.group, self.temperature = list(group), temperature
        self.supports_masking = True

    def call(self, logits):
        """Return `(..., k + 1)` for logits `(..., K)`."""
        rest = np.setdiff1d(np.arange(logits.shape[-1]), self.group).astype("int32")
        kept = ops.take(logits, np.array(self.group, "int32"), axis=-1)
        others = ops.take(logits, rest, axis=-1) / self.temperature
        merged = self.temperature * ops.logsumexp(others, axis=-1, keepdims=True)
        return ops.concatenate([kept, merged], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], len(self.group) + 1)

    def get_config(self) -> dict:
        arguments = {"group": self.group, "temperature": self.temperature}
        return {**super().get_config(), **arguments}
