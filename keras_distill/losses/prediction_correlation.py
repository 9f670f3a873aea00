"""Correlations of predictions: over the classes of a sample, over the samples of a class."""

from __future__ import annotations

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import strategies
from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.schedules import positive


@keras.saving.register_keras_serializable(package="keras_distill")
class PredictionCorrelation(DistillationLoss):
    """One minus Pearson's correlation of the predictions, along rows and columns.

    A stronger teacher's probabilities are hard to match exactly; how they rank the
    classes of a sample and the samples of a class is what a student can keep:

        T^2 * (beta * (1 - r(p_i, q_i)) + gamma * mean_k (1 - r(p_.k, q_.k)))

    for sample i, with `p = softmax(z_t / T)` and `q` the student's. The second part is
    that of the whole batch, the same for each sample; under replicas it is that of the
    global batch. It needs two samples or more: alone, a sample has none.

    Recommended weight: 1.0, beside a label weight of 1.

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 1; the source takes
            4 for CIFAR-100.
        beta: weight of the correlation over the classes. Default 1.
        gamma: weight of the correlation over the samples. Default 1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: the temperature is not above 0, or a weight is negative.

    Example:
        >>> kd.losses.PredictionCorrelation(4.0)(teacher_logits, student_logits)

    Source:
        Huang et al. 2022, Knowledge distillation from a stronger teacher (DIST).
    """

    match = Match.CLASSES
    scheduled = ("temperature",)
    needs = ("mask",)

    def __init__(
        self,
        temperature: float | LearningRateSchedule = 1.0,
        *,
        beta: float = 1.0,
        gamma: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.temperature = positive(temperature, "temperature")
        if beta < 0 or gamma < 0:
            raise ValueError(
                f"beta and gamma weigh the parts, 0 or more; got {beta} and {gamma}."
            )
        self.beta = beta
        self.gamma = gamma

    def call(self, teacher, student, *, temperature, mask):
        """Give `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        temperature = ops.cast(temperature, student.dtype)
        p, q = (ops.softmax(z / temperature, axis=-1) for z in (teacher, student))
        rows = 1.0 - _pearson(p, q, axis=-1)
        counts = ops.ones_like(rows) if mask is None else ops.cast(mask, rows.dtype)
        p, q, counts = (
            strategies.gather(ops.reshape(x, (-1, x.shape[-1])))
            for x in (p, q, ops.expand_dims(counts, axis=-1))
        )
        columns = ops.mean(1.0 - _pearson(p, q, axis=0, counts=counts))
        return ops.square(temperature) * (self.beta * rows + self.gamma * columns)

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "beta": self.beta, "gamma": self.gamma}


def _pearson(p, q, axis, counts=1.0):
    """Give the correlation along an axis; 1 where both are constant, 0 where one is.

    Args:
        p: `(N, K)`, or more axes.
        q: the same.
        axis: along which.
        counts: `(N, 1)`, 0 for rows that are left out.
    """
    total = ops.sum(ops.ones_like(p) * counts, axis=axis, keepdims=True)
    p, q = (
        (x - ops.sum(x * counts, axis=axis, keepdims=True) / total) * counts
        for x in (p, q)
    )
    both = ops.sum(p * q, axis=axis)
    p, q = (ops.sum(ops.square(x), axis=axis) for x in (p, q))
    # Deviations of 1e-6 and less are rounding.
    known = (p > 1e-12) & (q > 1e-12)
    scale = ops.sqrt(ops.where(known, p, 1.0)) * ops.sqrt(ops.where(known, q, 1.0))
    same = ops.cast((p <= 1e-12) & (q <= 1e-12), both.dtype)
    return ops.where(known, both / scale, same)
