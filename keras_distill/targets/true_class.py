"""The teacher's confidence in the true class, and nothing else of its prediction."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.targets.target import Target, rest_of, spread, true_class


@keras.saving.register_keras_serializable(package="keras_distill")
class TrueClass(Target):
    """The teacher's probability of the true class, the rest of the mass spread evenly.

        p_y for the label y,   (1 - p_y) / (K - 1) for the others,   p = softmax(z_t / T)

    What is left of distillation is how much each sample's gradient is rescaled by the
    teacher's confidence.

    Example:
        >>> kd.losses.SoftTarget(4.0, target=kd.targets.TrueClass())

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation (KD-pt).
    """

    needs = ("labels",)

    def call(self, teacher, temperature, labels):
        """Give log-probabilities, `(..., K)`."""
        log_p = ops.log_softmax(teacher / temperature, axis=-1)
        label = true_class(labels, log_p)
        return ops.where(label > 0, log_p, spread(label, rest_of(log_p, label)))
