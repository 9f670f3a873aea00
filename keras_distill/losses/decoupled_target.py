"""Soft targets in two parts: the true class against the rest, and the rest alone."""

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill._backend.number_checks import check_in
from keras_distill.adapters.match import Match
from keras_distill.losses import _close
from keras_distill.losses._entropy import at_label, entropy_terms
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.temperature import check_temperature, is_high, times_squared
from keras_distill.targets.target import LOG_ZERO, log_rest, one_hot_labels


@keras.saving.register_keras_serializable(package="keras_distill")
class DecoupledTarget(DistillationLoss):
    r"""Divergence on the true class against all others, and among the others.

    Soft targets are the first part plus `1 - p_y` times the second, so a teacher that
    is sure of the label hides its knowledge of the other classes. Decoupled, each part
    has a weight of its own:

    .. math::

        \ell = T^2 \left( \alpha \, \mathrm{KL}(b_t \,\|\, b_s)
            + \beta \, \mathrm{KL}(o_t \,\|\, o_s) \right)

    with `b = (p_y, 1 - p_y)` and `o` the softmax without the label's logit, all at
    temperature T and in log space.

    Recommended weight: 1.0, alongside a label weight of 1 and a warm-up of the weight over
    the first epochs, as in the source.

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        alpha: weight of the true class against the rest. Default 1.
        beta: weight of the rest alone. Default 8.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `temperature` is not above 0, or too high, as in `SoftTarget`; a
            weight is negative or not finite.

    Example:
        >>> loss = kd.losses.DecoupledTarget(4.0, beta=8.0)
        >>> loss(teacher_logits, student_logits, labels=labels)

    Source:
        Zhao et al. 2022, Decoupled knowledge distillation (DKD).
    """

    match = Match.CLASSES
    predicts = "classes"
    scheduled = ("temperature",)
    needs = ("labels",)
    needs_one_class = True

    def __init__(
        self,
        temperature: float | LearningRateSchedule = 4.0,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_temperature(temperature, self.dtype)
        check_in(0, alpha=alpha, beta=beta)
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta

    def call(self, teacher, student, *, temperature, labels):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        temperature = ops.cast(temperature, student.dtype)
        label = one_hot_labels(labels, student)
        sides = teacher / temperature, student / temperature
        (true_t, rest_t, others_t), (true_s, rest_s, others_s) = (
            _parts(logits, label) for logits in sides
        )
        binary = entropy_terms(true_t, true_s)
        binary += entropy_terms(rest_t, rest_s)
        among = ops.sum(entropy_terms(others_t, others_s), axis=-1)
        if is_high(self.temperature):
            *values, close = _close.decoupled(*sides, label)
            pairs = zip(values, (binary, among), strict=True)
            binary, among = (_close.where_close(x, close, y) for x, y in pairs)
        return times_squared(self.alpha * binary + self.beta * among, temperature)


def _parts(logits, label):
    """Return the logarithms of p_y and 1 - p_y, `(...)`, and of o, `(..., K)`."""
    log_p = ops.log_softmax(logits, axis=-1)
    true = at_label(label, log_p)
    rest = log_rest(log_p, label)
    others = ops.where(label > 0, LOG_ZERO, log_p - rest)
    return true, rest[..., 0], others
