"""What a layer gives before its activation, as far as the activation lets it pass."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_distill import adapters
from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class MarginActivation(DistillationLoss):
    """Squared distance to the teacher's values, behind a rectifier with a margin.

    Positive values are to be met; of negative ones only that they are negative, down to
    the mean that the teacher's negative values have in a channel:

        t = max(F_t, m_c),   m_c = E[x | x < 0],  x ~ N(beta_c, gamma_c^2)
        mean ( 0 where F_s <= t <= 0, else (F_s - t)^2 )

    with beta and gamma of the teacher's batch normalisation at the tap, found by
    itself; where a residual block adds up branches, those of the branches' sum, while
    the authors take the last branch's. Tap what goes into the activation, as
    `kd.Tap("stack3", side="input")`. The adapter is a 1x1 convolution with batch
    normalisation. The authors sum over height, width and channels; here the mean is
    taken.

    Recommended weight: 4, about the authors' 1/1000 of the sum for 64 channels of 8x8.

    Args:
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: no batch normalisation makes what is tapped of the teacher.

    Example:
        >>> before = kd.Tap("stack3", side="input")
        >>> kd.Term(kd.losses.MarginActivation(), student=before, teacher=before)

    Source:
        Heo et al. 2019, A comprehensive overhaul of feature distillation (OFD).
    """

    recommended_weight = 4.0
    needs = ("teacher_norm",)

    def adapters(self, student, teacher):
        """Give pooling to one size, and a connector to the teacher's channels."""
        pool, pool_teacher = Match.SPACE.infer(student, teacher)
        connector = adapters.Connector(teacher[-1], name="connector")
        return adapters.chain([pool, connector]), pool_teacher

    def call(self, teacher, student, *, teacher_norm):
        """Give `(B,)` for features of any shape."""
        margin = ops.cast(_margin(*teacher_norm), teacher.dtype)
        target = ops.maximum(teacher, margin)
        passes = ops.cast((student > target) | (target > 0), student.dtype)
        values = passes * ops.square(student - target)
        return ops.mean(values, axis=tuple(range(1, len(values.shape))))


def _margin(scale, offset):
    """Give the mean of a Gaussian below zero, `(C,)`."""
    scale, offset = (ops.stop_gradient(ops.cast(x, "float32")) for x in (scale, offset))
    scale = ops.maximum(scale, 1e-6)
    z = offset / scale
    below = 0.5 * ops.erfc(z / math.sqrt(2.0))
    density = ops.exp(-0.5 * ops.square(z)) / math.sqrt(2.0 * math.pi)
    mean = offset - scale * density / ops.maximum(below, 1e-3)
    # Where next to nothing is negative, the authors take three deviations below 0.
    return ops.where(below > 1e-3, mean, -3.0 * scale)
