"""Soft targets: the teacher's softened distribution over the classes."""

from __future__ import annotations

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill.losses.base import DistillationLoss, positive


@keras.saving.register_keras_serializable(package="keras_distill")
class SoftTarget(DistillationLoss):
    """Divergence of the student's softened prediction from the teacher's.

    The relative probabilities of wrong classes tell the student how the teacher
    generalises; the temperature makes them count. The factor T^2 keeps the size of the
    gradient, so that temperature and weight can be chosen independently:

        T^2 * sum_k p_k (log p_k - log q_k),   p = softmax(z_t / T), q = softmax(z_s / T)

    computed in log space. Its gradient equals that of the cross-entropy with soft
    targets; for T -> infinity it is `(z_s - z_t) / K` on centred logits. Sequences
    `(B, L, V)` give one value a token.

    Recommended weight: 1.0 (Hinton: high beside a low weight on the labels, as 0.9 and
    0.1).

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: the temperature is not above 0.

    Example:
        >>> kd.losses.SoftTarget(temperature=4.0)(teacher_logits, student_logits)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network.
    """

    match = "classes"
    moving = ("temperature",)

    def __init__(self, temperature: float | LearningRateSchedule = 4.0, **kwargs):
        super().__init__(**kwargs)
        self.temperature = positive(temperature, "temperature")

    def call(self, teacher, student, *, temperature):
        """Give `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        temperature = ops.cast(temperature, student.dtype)
        log_p = ops.log_softmax(teacher / temperature, axis=-1)
        log_q = ops.log_softmax(student / temperature, axis=-1)
        divergence = ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)
        return ops.square(temperature) * divergence
