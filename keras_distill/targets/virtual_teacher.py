"""A synthetic teacher made from the labels."""

import keras
import numpy as np
from keras import ops

from keras_distill._backend.number_checks import check_finite
from keras_distill.targets.target import (
    ABSENT,
    LOG_ZERO,
    Target,
    log_fewer,
    one_hot_labels,
)


@keras.saving.register_keras_serializable(package="keras_distill")
class VirtualTeacher(Target):
    r"""A synthetic teacher of perfect accuracy, with a fixed confidence.

    .. math::

        \mathrm{target} &= \mathrm{softmax}(\log p / T)

        p_k &= \mathrm{mass} \text{ for the label } k = y

        p_k &= \frac{1 - \mathrm{mass}}{K - 1} \text{ for the others}

    softened like a teacher's logits. The source uses T = 20.

    Args:
        mass: probability of the true class, above 0 and at most 1. Default 0.9; the
            source recommends 0.9 or more.

    Raises:
        ValueError: `mass` is not above 0 and at most 1.

    Example:
        >>> kd.losses.SoftTarget(20.0, target=kd.targets.VirtualTeacher(0.99))

    Source:
        Yuan et al. 2019, Revisiting knowledge distillation via label smoothing
        regularization (Tf-KD).
    """

    needs = ("labels",)
    needs_one_class = True

    def __init__(self, mass: float = 0.9):
        check_finite(mass=mass)
        if not 0 < mass <= 1:
            raise ValueError(
                f"mass is the true class's probability, above 0, at most 1; got {mass}."
            )
        self.mass = mass

    def call(self, teacher, temperature, labels):
        label = one_hot_labels(labels, teacher)
        others = max(teacher.shape[-1] - 1, 1)
        rest = np.log((1 - self.mass) / others) if self.mass < 1 else LOG_ZERO
        rest = rest + log_fewer(teacher, but=1)
        log_p = label * np.log(self.mass) + (1.0 - label) * rest
        log_p = ops.where(teacher > ABSENT, log_p, ABSENT)
        return ops.log_softmax(log_p / temperature, axis=-1)
