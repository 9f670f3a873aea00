"""Logits that are standardized over the classes before a loss compares them."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import peak
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.loss_wrapper import LossWrapper
from keras_distill.targets.target import ABSENT

EPSILON = 1e-7


@keras.saving.register_keras_serializable(package="keras_distill")
class StandardizedLogits(LossWrapper):
    r"""A loss of predictions, on logits that are standardized on both sides.

    A temperature shared by both models asks the student for logits of the teacher's
    mean and size, which a small net may not reach. Standardized, only the relations
    between the classes are compared:

    .. math::

        \ell = \mathrm{loss}(s(z_t), s(z_s)),
            \quad s(z) = \frac{z - \mathrm{mean} \, z}{\mathrm{std} \, z + 10^{-7}}

    over the K classes of a sample or token, with `std` of the K - 1 degrees of freedom
    that torch's has in the source's code. The temperature of the loss divides what is
    standardized. Classes of -inf are left out; equal logits, which have no deviation,
    become zeros.

    Recommended weight: 9, alongside a label weight of 0.1 and T = 2 (the source's for
    soft targets).

    Args:
        loss: compares the logits of one softmax, such as `SoftTarget`,
            `ReverseSoftTarget`, `JensenShannon`, `DecoupledTarget`,
            `PredictionCorrelation`, or a `Divergence` of your own. Labels that exclude
            each other are required: of independent ones the mean is knowledge.
        name: in the logs. Default: `"standardized_"` and the loss's.
        reduction, dtype: as in `DistillationLoss`. Default: the loss's.

    Raises:
        TypeError: `loss` is not a `kd.losses.DistillationLoss`.
        ValueError: it does not compare logits of one softmax.

    Example:
        >>> loss = kd.losses.StandardizedLogits(kd.losses.SoftTarget(2.0))
        >>> kd.Term(loss, weight=9.0)

    Source:
        Sun et al. 2024, Logit standardization in knowledge distillation.
    """

    match = Match.CLASSES
    predicts = "classes"
    recommended_weight = 9.0

    def __init__(self, loss: DistillationLoss, *, name: str | None = None, **kwargs):
        super().__init__(loss, prefix="standardized", name=name, **kwargs)

    def call(self, teacher, student, **context):
        """Return what the loss returns: `(B,)` for logits `(B, K)`."""
        return self.loss.call(standardized(teacher), standardized(student), **context)


def standardized(logits):
    """Return logits of mean 0 and standard deviation 1 over the classes, `(..., K)`."""
    present = logits > ABSENT
    # Exact zeros where logits are equal, however large they are.
    highest = ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    gaps = ops.where(present, logits - highest, 0.0)
    count = ops.sum(ops.cast(present, gaps.dtype), axis=-1, keepdims=True)
    mean = ops.sum(gaps, axis=-1, keepdims=True) / ops.maximum(count, 1.0)
    deviations = ops.where(present, gaps - mean, 0.0)
    largest = peak(deviations, axis=-1)
    squares = ops.sum(ops.square(deviations / largest), axis=-1, keepdims=True)
    varies = squares > 0.0
    variance = ops.where(varies, squares, 1.0) / ops.maximum(count - 1.0, 1.0)
    scale = ops.where(varies, largest * ops.sqrt(variance) + EPSILON, 1.0)
    return ops.where(present, deviations / scale, ABSENT)
