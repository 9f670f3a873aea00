"""Base of losses on softened predictions: a temperature and a target."""

from typing import ClassVar

from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill.adapters.match import Match
from keras_distill.losses._close import where_close
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.temperature import (
    HIGHEST_OF_TARGETS,
    check_temperature,
    is_high,
    times_squared,
)
from keras_distill.targets import Target


class Divergence(DistillationLoss):
    r"""Base class of divergences between the student's softened prediction and a target.

    A subclass implements `between`, the divergence D of two distributions in log space.
    This base applies the temperature and the target, and multiplies by T^2, which keeps
    the size of the gradient, so that temperature and weight can be chosen
    independently:

    .. math::

        \ell = T^2 D(p, q), \quad p = \mathrm{target}(z_t, T),
            \quad q = \mathrm{softmax}(z_s / T)

    T^2 magnifies the rounding errors of a divergence that is a difference, so that the
    temperature is at most `highest_temperature`, by default 100. A subclass that also
    implements `between_close` may set it higher. With a target it is at most 1000.

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        target: a `kd.targets.Target` that is applied to the teacher's prediction.
            Default: the prediction itself.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: `target` is not a `kd.targets.Target`.
        ValueError: `temperature` is not above 0, or too high.

    Example:
        >>> class SquaredHellinger(kd.losses.Divergence):
        ...     def between(self, log_p, log_q):
        ...         return 1.0 - ops.sum(ops.exp((log_p + log_q) / 2), axis=-1)
    """

    match = Match.CLASSES
    predicts = "classes"
    scheduled = ("temperature",)
    highest_temperature: ClassVar[float] = 100.0

    def __init__(
        self,
        temperature: float | LearningRateSchedule = 4.0,
        *,
        target: Target | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.temperature = temperature
        if target is not None and not isinstance(target, Target):
            raise TypeError(
                "target must be a kd.targets.Target, as in kd.targets.TopK(5), or None "
                f"for the teacher's prediction itself; got {target!r}."
            )
        self.target = target
        if target is not None:
            # A target may give masked keys a probability.
            self.masked_scores = ()
            self.share = target.balanced_share
        self._check_temperature()
        self.needs = () if target is None else target.needs
        self.needs_one_class = target is not None and target.needs_one_class

    def call(self, teacher, student, *, temperature, **context):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        temperature = ops.cast(temperature, student.dtype)
        if self.target is None:
            softened = teacher / temperature
            log_p = ops.log_softmax(softened, axis=-1)
        else:
            log_p = softened = self.target(teacher, temperature, **context)
        student = student / temperature
        values = self.between(log_p, ops.log_softmax(student, axis=-1))
        if is_high(self.temperature):
            close = self.between_close(softened, student)
            values = values if close is None else where_close(*close, values)
        return times_squared(values, temperature)

    def between(self, log_p, log_q):
        """Return the divergence of log-probabilities `(..., K)`, `(...)`.

        Args:
            log_p: the target's.
            log_q: the student's.
        """
        raise NotImplementedError

    def between_close(self, log_p, log_q):
        """Return the same where rows are close, without cancellation, or None.

        Args:
            log_p: logarithms of the target up to a constant, `(..., K)`.
            log_q: the student's.

        Returns:
            The divergence, `(...)`, finite in all rows, and which rows it is right for,
            `(..., 1)`.
        """

    def _check_temperature(self) -> None:
        highest, of = self.highest_temperature, type(self).__name__
        if self.target is not None and highest > HIGHEST_OF_TARGETS:
            highest, of = HIGHEST_OF_TARGETS, f"a loss on {type(self.target).__name__}"
        check_temperature(self.temperature, self.dtype, highest, of)
