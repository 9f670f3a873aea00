"""Soft targets: the teacher's softened distribution over the classes."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.losses.divergence import Divergence


@keras.saving.register_keras_serializable(package="keras_distill")
class SoftTarget(Divergence):
    """Divergence of the student's softened prediction from the teacher's.

    The relative probabilities of wrong classes tell the student how the teacher
    generalises; the temperature makes them count. The factor T^2 keeps the size of the
    gradient, so that temperature and weight can be chosen independently:

        T^2 * sum_k p_k (log p_k - log q_k),   p = softmax(z_t / T), q = softmax(z_s / T)

    computed in log space. Its gradient equals that of the cross-entropy with soft
    targets; for T -> infinity it is `(z_s - z_t) / K` on centred logits. Sequences
    `(B, L, V)` give one value a token: under a mask it is word-level sequence
    distillation.

    Recommended weight: 1.0 (Hinton: high beside a low weight on the labels, as 0.9 and
    0.1).

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        target: what the teacher's prediction is turned into first. Default: nothing.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: the target is none.
        ValueError: the temperature is not above 0.

    Example:
        >>> kd.losses.SoftTarget(temperature=4.0)(teacher_logits, student_logits)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network; on
        tokens: Kim, Rush 2016, Sequence-level knowledge distillation.
    """

    def between(self, log_p, log_q):
        """Give `sum_k p_k (log p_k - log q_k)`."""
        return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)
