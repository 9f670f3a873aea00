"""Whether a net attends to a mirrored image as to the image itself."""

from __future__ import annotations

import keras

from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.gradient_attention import half_distance


@keras.saving.register_keras_serializable(package="keras_distill")
class FlipSymmetry(DistillationLoss):
    """Distance of the label gradient from that of the mirrored image, mirrored back.

    What a pixel means to the loss should not depend on whether the image is mirrored:

        1/2 * || d CE(y, z_s(x)) / dx - flip(d CE(y, z_s(flip x)) / dx) ||_2

    It asks nothing of the teacher: a companion of `GradientAttention`. The student runs
    once more, on the mirrored batch, in training form, and is differentiated twice: a
    step costs about two more passes forwards and backwards through the student. Batch
    normalisation sees both batches.

    Recommended weight: 1, that of `GradientAttention`.

    Args:
        name, reduction, dtype: as in `DistillationLoss`.

    Example:
        >>> both = ("label_gradient", "mirrored_label_gradient")
        >>> kd.Term(kd.losses.FlipSymmetry(), student=both)

    Source:
        Zagoruyko, Komodakis 2017, Paying more attention to attention, section 3.2.
    """

    match = Match.NOTHING
    taps = 2
    compares_teacher = False

    def call(self, teacher, student):
        """Give `(B,)` for a pair of gradients of any shape."""
        return half_distance(student[1], student[0])
