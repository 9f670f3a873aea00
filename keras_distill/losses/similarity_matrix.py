"""Which samples activate a layer alike."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._pairs import everyone, normalised, products, vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class SimilarityMatrix(DistillationLoss):
    """Squared distance of the matrices of inner products, rows of length 1.

    Samples that are alike to the teacher should be alike to the student, whatever the
    features are that say so:

        value_i = 1/N * sum_j (G_s,ij / ||G_s,i|| - G_t,ij / ||G_t,i||)^2,   G = f f^T

    over the batch of N; its mean over i is the paper's `1/N^2 ||G_s - G_t||_F^2`. Under
    replicas the batch is the global one. No adapter: features of any shape compare.

    Recommended weight: 3000 (the paper's).

    Args:
        name, reduction, dtype: as in `DistillationLoss`.

    Example:
        >>> kd.Term(kd.losses.SimilarityMatrix(), student="stack3", teacher="stack3")

    Source:
        Tung, Mori 2019, Similarity-preserving knowledge distillation (SP).
    """

    match = Match.NOTHING
    recommended_weight = 3000.0

    def call(self, teacher, student):
        """Give `(B,)` for features of any shape."""
        gap = _rows(student) - _rows(teacher)
        return ops.mean(ops.square(gap), axis=-1)


def _rows(features):
    """Give the normalised rows of f f^T, `(B, N)`."""
    own = vectors(features)
    peak = ops.max(ops.abs(everyone(own)))
    # A common factor leaves the normalised rows as they are; squares can't overflow.
    own = own / ops.stop_gradient(ops.where(peak > 0, peak, 1.0))
    return normalised(products(own, everyone(own)))
