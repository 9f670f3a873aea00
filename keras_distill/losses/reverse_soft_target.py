"""Reverse soft targets: the mean is taken over the student's prediction."""

import keras
from keras import ops

from keras_distill.losses import _close
from keras_distill.losses.divergence import Divergence
from keras_distill.losses.temperature import HIGHEST
from keras_distill.targets.target import LOG_ZERO


@keras.saving.register_keras_serializable(package="keras_distill")
class ReverseSoftTarget(Divergence):
    r"""Divergence of the teacher's softened prediction from the student's.

    The student is judged on its own predictions, not on all of the teacher's: if it is
    too small for the teacher's distribution, it settles on the main modes instead of
    covering all:

    .. math::

        \ell &= T^2 \sum_k q_k (\log q_k - \log p_k)

        p &= \mathrm{softmax}(z_t / T), \quad q = \mathrm{softmax}(z_s / T)

    Where a target gives a class no probability (`SuperClasses` with a mass of 0,
    `VirtualTeacher(1.0)`), its logarithm counts as -1e4.

    Recommended weight: 1.0.

    Args:
        temperature, target, name, reduction, dtype: as in `SoftTarget`.

    Example:
        >>> kd.losses.ReverseSoftTarget(1.0)(teacher_logits, student_logits)

    Source:
        Gu et al. 2024, MiniLLM: knowledge distillation of large language models.
    """

    masked_scores = ("log_scores",)
    highest_temperature = HIGHEST

    def between(self, log_p, log_q):
        """Return `sum_k q_k (log q_k - log p_k)`."""
        # A class that the student leaves out adds nothing.
        log_q = ops.maximum(log_q, LOG_ZERO)
        log_p = ops.where(log_q > LOG_ZERO, log_p, LOG_ZERO)
        return ops.sum(ops.exp(log_q) * (log_q - log_p), axis=-1)

    def between_close(self, log_p, log_q):
        """Return the divergence where p and q are close, and where they are."""
        return _close.divergence(log_q, log_p)
