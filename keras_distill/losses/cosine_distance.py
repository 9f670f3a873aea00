"""The angle between two layers."""

import keras
from keras import ops

from keras_distill.losses._vectors import normalize
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class CosineDistance(DistillationLoss):
    r"""One minus the cosine of two layers, at each location or token.

    The student's hidden states should have the direction of the teacher's, whatever
    their length:

    .. math::

        \ell = 1 - \frac{\langle f_s, f_t \rangle}{\lVert f_s \rVert \, \lVert f_t \rVert}

    over the channels; of a map it is the mean over height and width. It is computed as
    half the squared distance of the vectors at length 1, which is 0 where both are zero.
    Where widths differ the adapter is a projection of the student, trained with it.

    Recommended weight: 1.0, alongside 5 for soft targets at T = 2 and 2 for the labels
    (the source's for language models). It lies between 0 and 2 for a layer of any size.

    Example:
        >>> kd.Term(kd.losses.CosineDistance(), student="block3", teacher="block6")

    Source:
        Sanh et al. 2019, DistilBERT, a distilled version of BERT: smaller, faster,
        cheaper and lighter.
    """

    def call(self, teacher, student):
        """Return `(B,)` for vectors and maps, `(B, L)` for sequences."""
        gap = normalize(student) - normalize(teacher)
        values = 0.5 * ops.sum(ops.square(gap), axis=-1)
        if len(values.shape) > 2:
            values = ops.mean(values, axis=tuple(range(1, len(values.shape))))
        return values
