"""Correlations between the channels of a layer."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import by_location, normalize, peak
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class ChannelCorrelation(DistillationLoss):
    r"""Squared distance of the channels' products with each other, rows of length 1.

    Which channels respond together, and which differ, shows how diverse a layer's
    features are; it depends neither on the number of locations nor on their order:

    .. math::

        \ell &= \frac{1}{C} \sum_{c,d} \left(
            \frac{G_{s,cd}}{\lVert G_{s,c} \rVert} - \frac{G_{t,cd}}{\lVert G_{t,c} \rVert}
            \right)^2

        G_{cd} &= \langle f_c, f_d \rangle

    with `f_c` channel c of a sample over all locations. The student's channels are
    projected to the teacher's C; heights and widths may differ. It takes C x C numbers
    per sample.

    Recommended weight: 2.5 (the source's code for ResNet-32x4 to 8x4 on CIFAR-100). The
    rows have length 1, so that the value lies between 0 and 4 for a layer of any size.

    Raises:
        ValueError: the tensors are vectors, which have no locations.

    Example:
        >>> kd.Term(kd.losses.ChannelCorrelation(), student="stack3", teacher="stack3")

    Source:
        Liu et al. 2021, Exploring inter-channel correlation for diversity-preserved
        knowledge distillation (ICKD-C). In the source's code the projection is there for
        equal widths too, and a batch normalization behind it.
    """

    match = Match.CHANNELS
    recommended_weight = 2.5
    needs = ("mask", "teacher_mask")

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for maps `(B, H, W, C)` and sequences `(B, L, C)`."""
        gap = _rows(student, mask) - _rows(teacher, teacher_mask)
        return ops.sum(ops.square(gap), axis=(1, 2)) / teacher.shape[-1]


def _rows(features, mask):
    """Return the normalized rows of the channels' products, `(B, C, C)`."""
    channels = by_location(features, "ChannelCorrelation", mask)
    channels = channels / peak(channels, axis=(1, 2))
    return normalize(ops.matmul(ops.transpose(channels, (0, 2, 1)), channels))
