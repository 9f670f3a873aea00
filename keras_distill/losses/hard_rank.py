"""The teacher's ranking of the other samples by nearness."""

import keras
from keras import ops

from keras_distill._backend.gradients import custom_gradient
from keras_distill._backend.number_checks import check_above, check_in, check_integers
from keras_distill.adapters.match import Match
from keras_distill.losses._scores import sorted_scores
from keras_distill.losses._vectors import unit_vectors, widened
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class HardRank(DistillationLoss):
    r"""Negative log-likelihood of the teacher's ranking under the student's scores.

    For each sample the others are a list to rank, the nearest first. The student should
    assign the teacher's order the highest likelihood under the Plackett-Luce model:

    .. math::

        \ell_i &= -\sum_r \log \frac{\exp(S_r)}{\sum_{r' \ge r} \exp(S_{r'})}

        S &= -\alpha \, \lVert f_i - f_j \rVert^\beta

    where r runs through the teacher's order and features are scaled to length 1. It is
    not zero where the student equals the teacher, and has no second derivative. Under
    replicas the list is the global batch.

    Recommended weight: 1.0, divided by the length of the list, `items` or N - 1, if that is
    long: the value is a sum over it.

    Args:
        items: length of the list, the teacher's nearest. Default: all others.
        scale: alpha > 0. Default 3.
        power: beta >= 1. Default 3.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `items`, `scale` or `power` is out of range, or scores could fall
            below -80.

    Example:
        >>> kd.Term(kd.losses.HardRank(), student="embedding", teacher="embedding")

    Source:
        Chen et al. 2018, DarkRank: accelerating deep metric learning via cross sample
        similarities transfer, hard transfer.
    """

    compares_samples = True
    match = Match.NOTHING
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def __init__(
        self,
        *,
        items: int | None = None,
        scale: float = 3.0,
        power: float = 3.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if items is not None:
            check_integers(2, items=items)
        check_above(0, scale=scale)
        check_in(1, power=power)
        if scale * 2**power > 80:
            raise ValueError(
                "Scores reach -scale * 2^power, whose exponential must be above 0 in "
                f"float32: at most 80; got scale {scale} and power {power}."
            )
        self.items = items
        self.scale = scale
        self.power = power

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for features of any shape."""
        sides = unit_vectors(teacher, teacher_mask), unit_vectors(student, mask)
        sides = sorted_scores(*sides, self.scale, self.power, self.items)
        return ops.cast(_negative_log_likelihood(widened(sides[1])), student.dtype)


@custom_gradient
def _negative_log_likelihood(ranked):
    """Return -log P of the order of scores `(B, n)`, `(B,)`.

    Value and gradient are computed together, which holds fewer matrices than
    differentiating the value.
    """
    # Scores lie between -scale * 2^power and 0, so that no exponential underflows, and
    # summing from the last to the first keeps the small ones.
    weights = ops.exp(ranked)
    remaining = ops.flip(ops.cumsum(ops.flip(weights, 1), axis=1), 1)
    gradients = weights * ops.cumsum(1.0 / remaining, axis=1) - 1.0
    values = ops.sum(ops.log(remaining) - ranked, axis=-1)
    return values, lambda upstream: upstream[:, None] * gradients
