"""Every class alike: label smoothing."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_distill.targets.target import Target


@keras.saving.register_keras_serializable(package="keras_distill")
class Uniform(Target):
    """A teacher that knows nothing: 1 / K for each class.

    Beside the labels it is label smoothing: the gradient at temperature 1 is that of
    smoothed labels.

    Example:
        >>> kd.losses.SoftTarget(1.0, target=kd.targets.Uniform())

    Source:
        Szegedy et al. 2016, Rethinking the Inception architecture for computer vision;
        as distillation: Tang et al. 2020, Yuan et al. 2019.
    """

    def call(self, teacher, temperature):
        """Give log-probabilities, `(..., K)`."""
        return ops.full_like(teacher, -np.log(teacher.shape[-1]))
