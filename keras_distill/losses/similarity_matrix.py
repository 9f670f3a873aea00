"""Similarities between samples, as a layer activates."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import inner_products, normalize, relative
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class SimilarityMatrix(DistillationLoss):
    r"""Squared distance of the matrices of inner products, rows of length 1.

    Samples that are similar to the teacher should be similar to the student, whatever
    the features behind it:

    .. math::

        \ell_i = \frac{1}{N} \sum_j \left(
            \frac{G_{s,ij}}{\lVert G_{s,i} \rVert} - \frac{G_{t,ij}}{\lVert G_{t,i} \rVert}
            \right)^2, \quad G = f f^\top

    over the batch of N; its mean over i is the paper's `1/N^2 ||G_s - G_t||_F^2`. Under
    replicas the batch is the global one. No adapter is needed: any shapes compare.

    Recommended weight: 3000 (the paper's, and RepDistiller's for batches of 64). The rows
    have length 1, so that the mean falls as 1/N: the pull of 3000 in a batch of 64 is that
    of `3000 * N / 64` in one of N, whatever the size of the features.
    `kd.suggest_weights` finds a weight for your models.

    Example:
        >>> kd.Term(kd.losses.SimilarityMatrix(), student="stack3", teacher="stack3")

    Source:
        Tung, Mori 2019, Similarity-preserving knowledge distillation (SP).
    """

    compares_samples = True
    match = Match.NOTHING
    recommended_weight = 3000.0
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for features of any shape."""
        gap = _rows(student, mask) - _rows(teacher, teacher_mask)
        return ops.mean(ops.square(gap), axis=-1)


def _rows(features, mask):
    """Return the normalized rows of f f^T, `(B, N)`."""
    return normalize(inner_products(relative(features, mask)))
