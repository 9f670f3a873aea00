"""Values before the activation, behind a rectifier with a margin."""

import math

import keras
from keras import ops

from keras_distill import adapters
from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import mean_per_token
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class MarginActivation(DistillationLoss):
    r"""Squared distance to the teacher's values, behind a rectifier with a margin.

    Positive values are matched. Where the teacher's value is negative, the student's
    only has to be so, down to the mean of the teacher's negative values in a channel:

    .. math::

        \ell &= \mathrm{mean} \left(
            0 \text{ where } F_s \le t \le 0, \text{ else } (F_s - t)^2 \right)

        t &= \max(F_t, m_c), \quad m_c = \mathrm{E}[x \mid x < 0],
            \quad x \sim \mathcal{N}(\beta_c, \gamma_c^2)

    with beta and gamma of the teacher's batch normalization at the tap, which is found
    automatically; where a residual block adds branches, those of the sum are used,
    while the authors use the last branch's. In a channel with fewer than one negative
    value in 1000, m_c is -3 gamma_c, as in the authors' code. Tap the input of the
    activation, as in `kd.Tap("stack3", side="input")`. The adapter is a 1x1 convolution
    with batch normalization. The authors sum over height, width and channels; here the
    mean is taken.

    Recommended weight: 4, about the authors' 1/1000 of the sum for 64 channels of 8x8; for
    other sizes theirs is `weight=H * W * C / 1000`. `kd.suggest_weights` finds a weight
    for your models.

    Raises:
        ValueError: the teacher's tap is not the output of a batch normalization.

    Example:
        >>> before = kd.Tap("stack3", side="input")
        >>> kd.Term(kd.losses.MarginActivation(), student=before, teacher=before)

    Source:
        Heo et al. 2019, A comprehensive overhaul of feature distillation (OFD).
    """

    recommended_weight = 4.0
    needs = ("teacher_norm",)

    def adapters(self, student, teacher):
        """Return pooling to one size and a connector to the teacher's channels."""
        pool, pool_teacher = Match.SPACE.infer(student, teacher)
        connector = adapters.Connector(teacher[-1], name="connector")
        return adapters.chain([pool, connector]), pool_teacher

    def call(self, teacher, student, *, teacher_norm):
        """Return `(B,)` for vectors and maps, `(B, L)` for sequences."""
        margin = ops.cast(_margin(*teacher_norm), teacher.dtype)
        target = ops.maximum(teacher, margin)
        counts = ops.cast((student > target) | (target > 0), student.dtype)
        return mean_per_token(counts * ops.square(student - target))


def _margin(scale, offset):
    """Return the mean of the negative part of a Gaussian, `(C,)`."""
    scale, offset = (ops.stop_gradient(ops.cast(x, "float32")) for x in (scale, offset))
    scale = ops.maximum(scale, 1e-6)
    z = offset / scale
    below = 0.5 * ops.erfc(z / math.sqrt(2.0))
    density = ops.exp(-0.5 * ops.square(z)) / math.sqrt(2.0 * math.pi)
    mean = offset - scale * density / ops.maximum(below, 1e-3)
    # Where almost nothing is negative, the authors use -3 standard deviations.
    return ops.where(below > 1e-3, mean, -3.0 * scale)
