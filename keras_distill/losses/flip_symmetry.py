"""Symmetry of the label gradient under mirroring of the image."""

import keras

from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.gradient_attention import half_distance


@keras.saving.register_keras_serializable(package="keras_distill")
class FlipSymmetry(DistillationLoss):
    r"""Distance of the label gradient from that of the mirrored image, mirrored back.

    How a pixel affects the loss should not depend on whether the image is mirrored:

    .. math::

        \ell = \frac{1}{2} \left\lVert
            g(x) - \mathrm{flip}(g(\mathrm{flip}(x))) \right\rVert_2,
            \quad g(x) = \frac{\partial \, \mathrm{CE}(y, z_s(x))}{\partial x}

    It does not use the teacher: combine it with `GradientAttention`. The student runs
    once more, on the mirrored batch and in training mode, and is differentiated twice:
    a step costs about two more forward and backward passes of the student. Batch
    normalization is updated by both batches.

    Recommended weight: 1, that of `GradientAttention`.

    Example:
        >>> both = kd.Tap.input_gradient(), kd.Tap.input_gradient(mirrored=True)
        >>> kd.Term(kd.losses.FlipSymmetry(), student=both)

    Source:
        Zagoruyko, Komodakis 2017, Paying more attention to attention, section 3.2.
    """

    match = Match.NOTHING
    takes_gradients = True
    taps = 2
    compares_teacher = False

    def call(self, teacher, student):
        """Return `(B,)` for a pair of gradients of any shape."""
        return half_distance(student[1], student[0])
