"""Soft targets at a temperature that is learnt against the student."""

import math

import keras
from keras import ops

from keras_distill import adapters
from keras_distill._backend.number_checks import check_above, check_in, check_integers
from keras_distill.adapters.match import Match
from keras_distill.losses import _close
from keras_distill.losses._entropy import absent_on_both
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.temperature import times_squared
from keras_distill.targets.target import ABSENT, LOG_ZERO


@keras.saving.register_keras_serializable(package="keras_distill")
class CurriculumTemperature(DistillationLoss):
    r"""Soft targets at one temperature that is trained to make them harder.

    The student minimizes the divergence, the temperature maximizes it, ever more so: a
    curriculum from easy to hard:

    .. math::

        \ell &= T^2 \sum_k p_k (\log p_k - \log q_k)

        p &= \mathrm{softmax}(z_t / T), \quad q = \mathrm{softmax}(z_s / T)

        T &= \mathrm{lowest} + \mathrm{span} \cdot \mathrm{sigmoid}(a)

    where the gradient by a is reversed: at step s it is multiplied by
    `-(1 - cos(pi s / steps)) / 2`, and by -1 from `steps` on. The adapter,
    `kd.adapters.LearnedTemperature`, holds a, and appends T to the student's logits.

    Recommended weight: 0.9, alongside a label weight of 0.1.

    Args:
        steps: over which the reversal reaches its full strength, 1 or more; the source's
            are those of ten epochs.
        lowest: temperature, above 0. Default 1.
        span: of the temperatures, 0 or more; `lowest + span` is at most 100. Default 20.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range; the adapter does not append T; student
            and teacher have other classes.

    Example:
        >>> kd.Term(kd.losses.CurriculumTemperature(steps=10 * len(train)))

    Source:
        Li et al. 2023, Curriculum temperature for knowledge distillation (CTKD), with
        one temperature for all samples. The source's code raises the strength once an
        epoch, to its value at the end of the epoch.
    """

    match = Match.NOTHING
    predicts = "classes"
    recommended_weight = 0.9
    needs = ("step",)

    def __init__(
        self, steps: int, *, lowest: float = 1.0, span: float = 20.0, **kwargs
    ):
        super().__init__(**kwargs)
        check_integers(1, steps=steps)
        check_above(0, lowest=lowest)
        check_in(0, 100 - lowest, span=span)
        self.steps = steps
        self.lowest = lowest
        self.span = span

    def adapters(self, student, teacher):
        """Return the temperature, for the student's logits."""
        Match.CLASSES.check(student, teacher)
        return adapters.LearnedTemperature(self.lowest, self.span, name="learned"), None

    def call(self, teacher, student, *, step):
        """Return `(B,)` for the student's logits and T, `(B, K + 1)`."""
        if student.shape[-1] != teacher.shape[-1] + 1:
            raise ValueError(
                f"CurriculumTemperature needs the student's {teacher.shape[-1]} logits "
                f"and a temperature; got {student.shape[-1]} numbers. Use adapter='auto' "
                "or a layer that ends in kd.adapters.LearnedTemperature."
            )
        student, temperature = student[..., :-1], student[..., -1:]
        part = ops.minimum(ops.cast(step, student.dtype) / self.steps, 1.0)
        temperature = _reversed(temperature, 0.5 - 0.5 * ops.cos(math.pi * part))
        absent = absent_on_both(student, teacher)
        softened = [_below_highest(z) / temperature for z in (teacher, student)]
        log_p, log_q = (ops.log_softmax(z, axis=-1) for z in softened)
        gap = ops.where(absent, 0.0, log_p - log_q)
        # The temperature has a gradient by the teacher's prediction too.
        values = ops.sum(ops.exp(log_p) * gap, axis=-1)
        values = _close.where_close(*_close.divergence(*softened), values)
        return times_squared(values, temperature[..., 0])


def _below_highest(logits):
    """Return logits less the highest; one of -inf, which has no gradient by T, finite."""
    gaps = logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    return ops.where(logits > ABSENT, gaps, LOG_ZERO)


def _reversed(x, strength):
    """Return x, whose gradient is multiplied by minus a strength."""
    return ops.stop_gradient(x) + strength * (ops.stop_gradient(x) - x)
