"""Soft targets of independent labels: a softened Bernoulli distribution for each."""

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill.adapters.match import Match
from keras_distill.losses import _close
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.temperature import check_temperature, is_high, times_squared


@keras.saving.register_keras_serializable(package="keras_distill")
class BinarySoftTarget(DistillationLoss):
    r"""Mean divergence of the student's softened yes or no from the teacher's.

    For outputs that a sigmoid turns into probabilities: the one logit of a binary
    classifier, or K labels that do not exclude each other. A softmax across them is not
    their distribution; across one logit it is always 1.

    .. math::

        \ell = \frac{T^2}{K} \sum_k \left[ p_k \log \frac{p_k}{q_k}
            + (1 - p_k) \log \frac{1 - p_k}{1 - q_k} \right]

    with `p = sigmoid(z_t / T)` and `q = sigmoid(z_s / T)`, in log space. It is the mean
    over the outputs, as Keras's binary cross-entropy is, so that the balance of the two
    does not depend on K. Its gradient is that of the binary cross-entropy with soft
    targets; for T -> infinity it is `(z_s - z_t) / (4 K)`.

    Recommended weight: 1.0, alongside a binary cross-entropy.

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `temperature` is not above 0, or too high, as in `SoftTarget`.

    Example:
        >>> kd.losses.BinarySoftTarget(temperature=4.0)(teacher_logits, student_logits)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network, for
        each label as a problem of two classes, whose logits are z and 0.
    """

    match = Match.CLASSES
    predicts = "labels"
    scheduled = ("temperature",)

    def __init__(self, temperature: float | LearningRateSchedule = 4.0, **kwargs):
        super().__init__(**kwargs)
        check_temperature(temperature, self.dtype)
        self.temperature = temperature

    def call(self, teacher, student, *, temperature):
        """Return `(B,)` for logits `(B, K)` or `(B,)`, `(B, L)` for `(B, L, K)`."""
        temperature = ops.cast(temperature, student.dtype)
        teacher, student = teacher / temperature, student / temperature
        yes = _part(ops.log_sigmoid(teacher), ops.log_sigmoid(student))
        no = _part(ops.log_sigmoid(-teacher), ops.log_sigmoid(-student))
        values = yes + no
        if is_high(self.temperature):
            values = _where_close(teacher, student, values)
        values = ops.mean(values, axis=-1) if len(values.shape) > 1 else values
        return times_squared(values, temperature)


def _where_close(teacher, student, values):
    """Return the divergences of log-odds, those close to each other without cancellation."""
    gap = student - teacher
    close = ops.abs(gap) < _close.SPAN
    p, rest = ops.sigmoid(teacher), ops.sigmoid(-teacher)
    return ops.where(close, _close.binary(p, rest, ops.where(close, gap, 0.0)), values)


def _part(log_p, log_q):
    """Return `p (log p - log q)`, 0 where p is 0."""
    p = ops.exp(log_p)
    return p * ops.where(p > 0.0, log_p - log_q, 0.0)
