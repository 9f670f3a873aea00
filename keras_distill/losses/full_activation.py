"""Whole layers, each scaled to length 1."""

import keras
from keras import ops

from keras_distill.losses._masking import of_both
from keras_distill.losses._vectors import unit_vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class FullActivation(DistillationLoss):
    r"""Squared distance of two layers that are scaled to length 1.

    The baseline of attention maps: the whole activation, not only its locations:

    .. math::

        \ell = \left\lVert
            \frac{F_s}{\lVert F_s \rVert} - \frac{F_t}{\lVert F_t \rVert} \right\rVert^2

    over height, width and channels together, from 0 to 4. A layer that is zero
    everywhere stays zero. Where channels differ, an adapter projects the student's to
    the teacher's.

    Recommended weight: 10, our own choice: about that of `AttentionMap` on 8x8 maps, which
    is `1000 / (H * W)` on this sum. The sum has the same range for a layer of any size.

    Example:
        >>> kd.Term(kd.losses.FullActivation(), student="stack3", teacher="stack3")

    Source:
        Zagoruyko, Komodakis 2017, Paying more attention to attention (F-ActT).
    """

    recommended_weight = 10.0
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for features of any shape."""
        mask = of_both(mask, teacher_mask)
        gap = unit_vectors(student, mask) - unit_vectors(teacher, mask)
        return ops.sum(ops.square(gap), axis=-1)
