"""Two targets in one."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.targets.target import Target


@keras.saving.register_keras_serializable(package="keras_distill")
class Mixed(Target):
    """A mixture of two targets.

        (1 - share) * first + share * second

    of probabilities. KD-pt+sim is that of `TrueClass` and `ClassSimilarity`.

    Args:
        first: a target.
        second: another.
        share: of the second, between 0 and 1. Default 0.5.

    Raises:
        ValueError: the share does not lie between 0 and 1.

    Example:
        >>> kd.targets.Mixed(kd.targets.TrueClass(), similarity, share=0.3)

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation
        (KD-pt+sim).
    """

    def __init__(self, first: Target, second: Target, share: float = 0.5):
        if not 0 < share < 1:
            raise ValueError(
                f"share is that of the second target, between 0 and 1; got {share}. At "
                "0 or 1 use one of the targets alone."
            )
        self.first = first
        self.second = second
        self.share = share
        self.needs = tuple(dict.fromkeys((*first.needs, *second.needs)))

    def call(self, teacher, temperature, **context):
        """Give log-probabilities, `(..., K)`."""
        first = self.first(teacher, temperature, **context)
        second = self.second(teacher, temperature, **context)
        return ops.logaddexp(
            first + ops.log(1.0 - self.share), second + ops.log(self.share)
        )

    def get_config(self) -> dict:
        """Give the arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "first": serialize(self.first),
            "second": serialize(self.second),
            "share": self.share,
        }
