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
    that of smoothed labels. It pulls against the labels on every sample, so that a term
    with `weight="balanced"` pulls 0.3 times as hard as they do.

    Example:
        >>> kd.losses.SoftTarget(1.0, target=kd.targets.Uniform())

    Source:
        Szegedy et al. 2016, Rethinking the Inception architecture for computer vision;
        viewed as distillation: Tang et al. 2020, Yuan et al. 2019.
    """

    # Of 0.1, 0.3, 1 and 3, the best on held-out digits: docs/results/compare.md.
    balanced_share = 0.3

    def call(self, teacher, temperature):
        even = log_fewer(teacher) - np.log(teacher.shape[-1])
        return ops.where(teacher > ABSENT, even, ABSENT)
