"""The teacher's prediction raised to a power, and samples weighted by its softness."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_above
from keras_distill.adapters.match import Match
from keras_distill.losses._entropy import entropy_terms
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class PowerWeightedTarget(DistillationLoss):
    r"""Divergence from the teacher's probabilities to a power, weighted by their sum.

    The student has no temperature. A sample on which the teacher is unsure, whose
    powers sum to more, weighs more:

    .. math::

        \ell = U \sum_k t_k (\log t_k - \log q_k),
            \quad U = \sum_k p_k^g, \quad t_k = p_k^g / U

    with `p = softmax(z_t)` and `q = softmax(z_s)`, in log space. U is from 1 to
    K^(1 - g). Without it the loss is `SoftTarget(1.0)` on `kd.targets.PowerTransform`.

    Recommended weight: 4.0, alongside a label weight of 1 (the source's at g = 0.2,
    beside CRD, for VGG-13 to VGG-8 on CIFAR-100).

    Args:
        exponent: g, above 0; below 1 it softens. Default 0.2.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: `exponent` is not a number.
        ValueError: `exponent` is not above 0, or not finite.

    Example:
        >>> kd.losses.PowerWeightedTarget(0.2)(teacher_logits, student_logits)

    Source:
        Zheng, Yang 2024, Knowledge distillation based on transformed teacher matching
        (WTTM).
    """

    match = Match.CLASSES
    predicts = "classes"
    recommended_weight = 4.0

    def __init__(self, exponent: float = 0.2, **kwargs):
        super().__init__(**kwargs)
        check_above(0, exponent=exponent)
        self.exponent = exponent

    def call(self, teacher, student):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        powers = self.exponent * ops.log_softmax(teacher, axis=-1)
        log_sum = ops.logsumexp(powers, axis=-1, keepdims=True)
        log_q = ops.log_softmax(student, axis=-1)
        values = ops.sum(entropy_terms(powers - log_sum, log_q), axis=-1)
        return ops.exp(log_sum[..., 0]) * values
