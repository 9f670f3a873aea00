"""The teacher's prediction, raised to a power."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_above
from keras_distill.targets.target import Target


@keras.saving.register_keras_serializable(package="keras_distill")
class PowerTransform(Target):
    r"""The teacher's probabilities to a power, scaled to sum to one.

    .. math::

        \frac{p_k^g}{\sum_j p_j^g}, \quad p = \mathrm{softmax}(z_t / T)

    At T = 1 it is the teacher's prediction at the temperature 1 / g, which the student
    has to reach without a temperature of its own. Besides the cross-entropy with the
    teacher this rewards a student of high Renyi entropy, which is less sure of itself.

    The source's term is `kd.losses.SoftTarget(1.0, target=PowerTransform(0.1))`
    alongside a label weight of 1; at g = 0.1 it weighs 45 for VGG-13 to VGG-8 on
    CIFAR-100. `kd.losses.PowerWeightedTarget` weighs samples too.

    Args:
        exponent: g, above 0; below 1 it softens. Default 0.1.

    Raises:
        TypeError: `exponent` is not a number.
        ValueError: `exponent` is not above 0, or not finite.

    Example:
        >>> kd.losses.SoftTarget(1.0, target=kd.targets.PowerTransform(0.1))

    Source:
        Zheng, Yang 2024, Knowledge distillation based on transformed teacher matching
        (TTM).
    """

    def __init__(self, exponent: float = 0.1):
        check_above(0, exponent=exponent)
        self.exponent = exponent

    def call(self, teacher, temperature):
        log_p = ops.log_softmax(teacher / temperature, axis=-1)
        return ops.log_softmax(self.exponent * log_p, axis=-1)
