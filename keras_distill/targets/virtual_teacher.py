"""A teacher that is made up from the labels."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_distill.targets.target import NOTHING, Target, true_class


@keras.saving.register_keras_serializable(package="keras_distill")
class VirtualTeacher(Target):
    """A teacher of perfect accuracy: a mass on the true class, the rest spread evenly.

        p = mass for the label, (1 - mass) / (K - 1) for the others;
        target = softmax(log p / T)

    softened as a teacher's logits would be. The source takes T = 20.

    Args:
        mass: on the true class, above 0 and at most 1. Default 0.9; the source asks
            for 0.9 or more.

    Raises:
        ValueError: the mass is not a probability.

    Example:
        >>> kd.losses.SoftTarget(20.0, target=kd.targets.VirtualTeacher(0.99))

    Source:
        Yuan et al. 2019, Revisiting knowledge distillation via label smoothing
        regularization (Tf-KD).
    """

    needs = ("labels",)

    def __init__(self, mass: float = 0.9):
        if not 0 < mass <= 1:
            raise ValueError(
                f"mass is the probability of the true class, above 0 to 1; got {mass}."
            )
        self.mass = mass

    def call(self, teacher, temperature, labels):
        """Give log-probabilities, `(..., K)`."""
        label = true_class(labels, teacher)
        others = max(teacher.shape[-1] - 1, 1)
        rest = np.log((1 - self.mass) / others) if self.mass < 1 else NOTHING
        log_p = label * np.log(self.mass) + (1.0 - label) * rest
        return ops.log_softmax(log_p / temperature, axis=-1)

    def get_config(self) -> dict:
        """Give the arguments."""
        return {"mass": self.mass}
