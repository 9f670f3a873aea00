"""Triplets whose order several teachers vote on."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_in
from keras_distill.adapters.match import Match
from keras_distill.losses._triplets import triplet_margin
from keras_distill.losses._vectors import distances, relative, unit_vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class VotedTriplet(DistillationLoss):
    r"""Margin loss on triplets whose order the teachers vote on.

    Layers of several teachers can't be averaged, but each teacher determines which of
    two samples is nearer to a third. The student learns the order of the majority:

    .. math::

        \ell_i = \mathrm{mean}_{(j, k)} \max(0, d_s(i, j) - d_s(i, k) + \mathrm{margin})

    over the pairs of which most teachers find j nearer to i than k; pairs with a tied
    vote are left out. The student's distances are those of features scaled to length 1.
    Anchors are processed one after another, so that memory is O(B^2) instead of O(B^3);
    it has no second derivative. Under replicas the batch is the global one. Pass one tap
    of the student, and one tap per member of the teacher.

    Recommended weight: 1.0.

    Args:
        margin: between the distances, 0 or more. Default 0.1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `margin` is negative.

    Example:
        >>> members = "0/pool", "1/pool", "2/pool"
        >>> kd.Term(kd.losses.VotedTriplet(), student="pool", teacher=members)

    Source:
        You et al. 2017, Learning from multiple teacher networks.
    """

    compares_samples = True
    match = Match.NOTHING
    several_teachers = True
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def __init__(self, *, margin: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        check_in(0, margin=margin)
        self.margin = margin

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)`; `teacher` is a tuple of features, one per member."""
        teacher = teacher if isinstance(teacher, (tuple, list)) else (teacher,)
        members = [distances(relative(x, teacher_mask)) for x in teacher]
        members = ops.stack(members, axis=1)
        apart = distances(unit_vectors(student, mask))
        return triplet_margin(apart, members, _majority, self.margin)


def _majority(members):
    """Return, of distances `(M, N)`, where most members find j nearer than k, `(N, N)`."""
    votes = 0
    for member in range(members.shape[0]):
        row, column = members[member][None, :], members[member][:, None]
        votes += ops.cast(row > column, "int8") - ops.cast(row < column, "int8")
    return votes > 0
