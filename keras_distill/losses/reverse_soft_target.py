"""Soft targets the other way round: the mean is taken over the student's prediction."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.losses.divergence import Divergence


@keras.saving.register_keras_serializable(package="keras_distill")
class ReverseSoftTarget(Divergence):
    """Divergence of the teacher's softened prediction from the student's.

    The student is held to what it says, not to all that the teacher says: one too small
    for the teacher's distribution settles on its main modes in place of covering all:

        T^2 * sum_k q_k (log q_k - log p_k),   p = softmax(z_t / T), q = softmax(z_s / T)

    A target that gives a class no probability (`SuperClasses` with a mass of 0,
    `VirtualTeacher(1.0)`) counts as a logarithm of -1e4.

    Recommended weight: 1.0.

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        target: what the teacher's prediction is turned into first. Default: nothing.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: the target is none.
        ValueError: the temperature is not above 0.

    Example:
        >>> kd.losses.ReverseSoftTarget(1.0)(teacher_logits, student_logits)

    Source:
        Gu et al. 2024, MiniLLM: knowledge distillation of large language models.
    """

    def between(self, log_p, log_q):
        """Give `sum_k q_k (log q_k - log p_k)`."""
        return ops.sum(ops.exp(log_q) * (log_q - log_p), axis=-1)
