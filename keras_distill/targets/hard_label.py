"""The class that the teacher predicts, as a label."""

import keras
from keras import ops

from keras_distill.targets.target import ABSENT, LOG_ZERO, Target


@keras.saving.register_keras_serializable(package="keras_distill")
class HardLabel(Target):
    r"""Probability 1 on the class that the teacher predicts, 0 on the others.

    .. math::

        p_k = 1 \text{ for } k = \arg\max z_t, \text{ else } 0

    at any temperature. With `SoftTarget(1.0)` it is the cross-entropy with the teacher's
    prediction as a label: hard distillation, which needs no temperature and no weight
    that fits one, and labels data that have none.

    Example:
        >>> kd.losses.SoftTarget(1.0, target=kd.targets.HardLabel())

    Source:
        Touvron et al. 2021, Training data-efficient image transformers & distillation
        through attention (DeiT). The source's soft distillation is divided by the number
        of classes: its weight w is w / K for `SoftTarget`.
    """

    def call(self, teacher, temperature):
        del temperature
        first = ops.one_hot(ops.argmax(teacher, axis=-1), teacher.shape[-1])
        log_p = ops.where(first > 0, 0.0, LOG_ZERO)
        return ops.cast(ops.where(teacher > ABSENT, log_p, ABSENT), teacher.dtype)
