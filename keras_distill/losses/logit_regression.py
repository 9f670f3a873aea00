"""Logit regression: the teacher's logits themselves as targets."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._entropy import absent_on_both
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class LogitRegression(DistillationLoss):
    r"""Squared distance of the logits.

    Regression on logits keeps what the softmax would squash. Centered, it ignores a
    constant added to all logits of a sample, which changes no prediction:

    .. math::

        \ell = \frac{1}{2} \sum_{k=1}^{K} (z_{s,k} - z_{t,k})^2

    Centered and divided by K, it is the limit of soft targets for T -> infinity.

    Recommended weight: 1.0, alone or alongside labels.

    Args:
        centred: whether to subtract the mean over the classes. Default False.
        name, reduction, dtype: as in `DistillationLoss`.

    Example:
        >>> kd.losses.LogitRegression(centred=True)(teacher_logits, student_logits)

    Source:
        Ba, Caruana 2014, Do deep nets really need to be deep?; Bucila, Caruana,
        Niculescu-Mizil 2006, Model compression.
    """

    match = Match.CLASSES

    def __init__(self, *, centred: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.centred = centred

    @property
    def predicts(self) -> str | None:
        """What outputs are taken for: anything; centered, the logits of one softmax."""
        return "classes" if self.centred else None

    @property
    def masked_scores(self) -> tuple[str, ...]:
        """Both kinds; the mean of log scores is over masked keys too."""
        return ("scores",) if self.centred else ("scores", "log_scores")

    def call(self, teacher, student):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        # A class that is -inf on both sides has no gap.
        gap = ops.where(student == teacher, 0.0, student - teacher)
        if self.centred:
            absent = absent_on_both(student, teacher)
            infinite = ops.logical_or(absent, ops.abs(gap) == float("inf"))
            gap = ops.where(absent, 0.0, gap - _mean(gap, infinite))
        return 0.5 * ops.sum(ops.square(gap), axis=-1)


def _mean(gap, left_out):
    """Return the mean over the classes that are not left out, `(..., 1)`."""
    present = ops.mean(1.0 - ops.cast(left_out, gap.dtype), axis=-1, keepdims=True)
    mean = ops.mean(ops.where(left_out, 0.0, gap), axis=-1, keepdims=True)
    return ops.divide_no_nan(mean, present)
