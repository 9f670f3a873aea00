"""Correlations of predictions: over the classes of a sample, over the samples of a class."""

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import strategies
from keras_distill._backend.number_checks import check_in
from keras_distill.adapters.match import Match
from keras_distill.losses import _close
from keras_distill.losses._entropy import absent_on_both
from keras_distill.losses._masking import expanded, of_both
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.temperature import check_temperature, is_high, times_squared


@keras.saving.register_keras_serializable(package="keras_distill")
class PredictionCorrelation(DistillationLoss):
    r"""One minus Pearson's correlation of the predictions, along rows and columns.

    A stronger teacher's probabilities are hard to match exactly; a student can still
    preserve how they rank the classes of a sample and the samples of a class:

    .. math::

        \ell_i = T^2 \left( \beta \, (1 - r(p_i, q_i))
            + \gamma \, \mathrm{mean}_k (1 - r(p_{\cdot k}, q_{\cdot k})) \right)

    for sample i, with `p = softmax(z_t / T)` and `q` the student's. The second part is
    over the whole batch, under replicas the global one, and is the same for each
    sample. It needs two samples or more: the samples of a single one do not correlate.

    Recommended weight: 1.0, alongside a label weight of 1.

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 1; the source uses
            4 for CIFAR-100.
        beta: weight of the correlation over the classes. Default 1.
        gamma: weight of the correlation over the samples. Default 1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `temperature` is not above 0, or too high, as in `SoftTarget`; a
            weight is negative or not finite.

    Example:
        >>> kd.losses.PredictionCorrelation(4.0)(teacher_logits, student_logits)

    Source:
        Huang et al. 2022, Knowledge distillation from a stronger teacher (DIST).
    """

    compares_samples = True
    match = Match.CLASSES
    predicts = "classes"
    scheduled = ("temperature",)
    needs = ("mask", "teacher_mask")

    def __init__(
        self,
        temperature: float | LearningRateSchedule = 1.0,
        *,
        beta: float = 1.0,
        gamma: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_temperature(temperature, self.dtype)
        check_in(0, beta=beta, gamma=gamma)
        self.temperature = temperature
        self.beta = beta
        self.gamma = gamma

    def call(self, teacher, student, *, temperature, mask, teacher_mask):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        temperature = ops.cast(temperature, student.dtype)
        sides = teacher / temperature, student / temperature
        if is_high(self.temperature):
            # Correlations do not depend on a scale or a constant.
            p, q = (temperature * _close.deviations(z) for z in sides)
        else:
            p, q = (ops.softmax(z, axis=-1) for z in sides)
        # Classes that are -inf on both sides are left out, as masked tokens are.
        counts = 1.0 - ops.cast(absent_on_both(student, teacher), p.dtype)
        rows = 1.0 - _pearson(p, q, axis=-1, counts=counts)
        mask = of_both(mask, teacher_mask)
        if mask is not None:
            counts = counts * expanded(mask, counts, p.dtype)
        p, q, counts = (
            strategies.gather(ops.reshape(x, (-1, x.shape[-1]))) for x in (p, q, counts)
        )
        columns = _mean_of_columns(1.0 - _pearson(p, q, axis=0, counts=counts), counts)
        return times_squared(self.beta * rows + self.gamma * columns, temperature)


def _mean_of_columns(values, counts):
    """Return the mean over the classes that occur in a row."""
    occurs = ops.cast(ops.max(counts, axis=0) > 0, values.dtype)
    return ops.divide_no_nan(ops.mean(values * occurs), ops.mean(occurs))


def _pearson(p, q, axis, counts):
    """Return the correlation along an axis; 1 if both are constant, 0 if one is.

    Entries whose `counts`, in the shape of p, is 0 are left out.
    """
    total = ops.maximum(ops.sum(counts, axis=axis, keepdims=True), 1.0)
    p, q = (
        (x - ops.sum(x * counts, axis=axis, keepdims=True) / total) * counts
        for x in (p, q)
    )
    covariance = ops.sum(p * q, axis=axis)
    p, q = (ops.sum(ops.square(x), axis=axis) for x in (p, q))
    # Deviations of norm 1e-6 and less are rounding errors.
    vary = (p > 1e-12) & (q > 1e-12)
    scale = ops.sqrt(ops.where(vary, p, 1.0)) * ops.sqrt(ops.where(vary, q, 1.0))
    same = ops.cast((p <= 1e-12) & (q <= 1e-12), covariance.dtype)
    return ops.where(vary, covariance / scale, same)
