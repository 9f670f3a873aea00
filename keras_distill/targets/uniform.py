"""The uniform distribution, as in label smoothing."""

import keras
import numpy as np
from keras import ops

from keras_distill.targets.target import ABSENT, Target, log_fewer


@keras.saving.register_keras_serializable(package="keras_distill")
class Uniform(Target):
    r"""The uniform distribution over the classes.

    .. math::

        p_k = \frac{1}{K}

    Together with the label loss it is label smoothing: at temperature 1 the gradient is
    that of smoothed labels.

    Example:
        >>> kd.losses.SoftTarget(1.0, target=kd.targets.Uniform())

    Source:
        Szegedy et al. 2016, Rethinking the Inception architecture for computer vision;
        viewed as distillation: Tang et al. 2020, Yuan et al. 2019.
    """

    def call(self, teacher, temperature):
        even = log_fewer(teacher) - np.log(teacher.shape[-1])
        return ops.where(teacher > ABSENT, even, ABSENT)
