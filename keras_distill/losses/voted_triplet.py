"""Which of two samples several teachers find nearer to a third."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._pairs import distances, everyone, normalised, vectors
from keras_distill.losses._triplets import triplet_margin
from keras_distill.losses.distillation_loss import DistillationLoss


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

    match = Match.NOTHING
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

        near = _distances(normalised(vectors(student)))
        return triplet_margin(near, known, _majority, self.margin)

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "margin": self.margin}


def _distances(own):
    return distances(own, everyone(own))


def _majority(known):
    """Tell where most of the teachers' distances `(M, N)` find j nearer than k."""
    votes = 0
    for member in range(known.shape[0]):
        row, column = known[member][None, :], known[member][:, None]
        votes += ops.cast(row > column, "int8") - ops.cast(row < column, "int8")
    return votes > 0
