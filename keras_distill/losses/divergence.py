"""Base of losses on softened predictions: a temperature and a target."""

from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.temperature import check_temperature, times_squared
from keras_distill.targets import Target


class Divergence(DistillationLoss):
    """Base class of divergences between the student's softened prediction and a target.

    A subclass implements `between`, the divergence of two distributions in log space.
    This base applies the temperature and the target, and multiplies by T^2, which keeps
    the size of the gradient, so that temperature and weight can be chosen independently.

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        target: a `kd.targets.Target` that is applied to the teacher's prediction.
            Default: the prediction itself.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: `target` is not a `kd.targets.Target`.
        ValueError: `temperature` is not above 0.

    Example:
        >>> class SquaredHellinger(kd.losses.Divergence):
        ...     def between(self, log_p, log_q):
        ...         return 1.0 - ops.sum(ops.exp((log_p + log_q) / 2), axis=-1)
    """

    match = Match.CLASSES
    predicts = "classes"
    scheduled = ("temperature",)

    def __init__(
        self,
        temperature: float | LearningRateSchedule = 4.0,
        *,
        target: Target | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_temperature(temperature)
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
        self.needs = () if target is None else target.needs
        self.needs_one_class = target is not None and target.needs_one_class

    def call(self, teacher, student, *, temperature, **context):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        temperature = ops.cast(temperature, student.dtype)
        if self.target is None:
            log_p = ops.log_softmax(teacher / temperature, axis=-1)
        else:
            log_p = self.target(teacher, temperature, **context)
        log_q = ops.log_softmax(student / temperature, axis=-1)
        return times_squared(self.between(log_p, log_q), temperature)

    def between(self, log_p, log_q):
        """Return the divergence of log-probabilities `(..., K)`, `(...)`.

        Args:
            log_p: the target's.
            log_q: the student's.
        """
        raise NotImplementedError
