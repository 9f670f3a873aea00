"""Which of two samples several teachers find nearer to a third."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.pairs import distances, everyone, normalised, vectors


@keras.saving.register_keras_serializable(package="keras_distill")
class VotedTriplet(DistillationLoss):
    """Margin loss on triplets whose order the teachers vote on.

    Layers of several teachers can't be averaged, but each says which of two samples is
    nearer to a third. The majority's order is asked of the student:

        value_i = mean_{(j, k)} max(0, d_s(i, j) - d_s(i, k) + margin)

    over the pairs of which most teachers find j nearer to i than k; pairs on which the
    vote is a tie are left out. The student's distances are those of features scaled to
    length 1. Anchors are taken one after another, so that memory is that of B^2 numbers
    and not of B^3; it has no second derivative. Under replicas the batch is the global
    one. Give one tap of the student, and as many of the teacher as there are members.

    Recommended weight: 1.0.

    Args:
        margin: between the distances, 0 or more. Default 0.1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: the margin is negative.

    Example:
        >>> members = "0/pool", "1/pool", "2/pool"
        >>> kd.Term(kd.losses.VotedTriplet(), student="pool", teacher=members)

    Source:
        You et al. 2017, Learning from multiple teacher networks.
    """

    match = "nothing"
    several_teachers = True

    def __init__(self, *, margin: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        if margin < 0:
            raise ValueError(f"margin is 0 or more; got {margin}.")
        self.margin = margin

    def call(self, teacher, student):
        """Give `(B,)`; the teacher's is a tuple of features, one a member."""
        teacher = teacher if isinstance(teacher, (tuple, list)) else (teacher,)
        known = ops.stack([_distances(x) for x in map(vectors, teacher)], axis=1)

        @ops.custom_gradient
        def losses(near):
            values, slopes = ops.map(lambda pair: self._anchor(*pair), (known, near))

            def gradient(*args, upstream=None):
                upstream = args[0] if upstream is None else upstream
                return upstream[:, None] * slopes

            return values, gradient

        return losses(_distances(normalised(vectors(student))))

    def _anchor(self, known, near):
        """Give an anchor's value and its slope by the distances to the others.

        Args:
            known: the teachers' distances, `(M, N)`.
            near: the student's, `(N,)`.
        """
        votes = ops.sum(ops.sign(known[:, None, :] - known[:, :, None]), axis=0)
        # (N, N), 1 where the majority finds j nearer than k.
        nearer = ops.cast(votes > 0, near.dtype)
        short = near[:, None] - near[None, :] + self.margin
        count = ops.maximum(ops.sum(nearer), 1.0)
        active = nearer * ops.cast(short > 0, near.dtype)
        slopes = (ops.sum(active, axis=1) - ops.sum(active, axis=0)) / count
        return ops.sum(active * short) / count, slopes

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "margin": self.margin}


def _distances(own):
    return distances(own, everyone(own))
