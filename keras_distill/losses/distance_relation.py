"""Distances between samples, relative to their mean."""

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import distances, huber, relative, widened
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class DistanceRelation(DistillationLoss):
    r"""Huber loss of the distances between samples, each model's divided by their mean.

    Only the relations between samples are kept, not their positions, so student and
    teacher may have any number of features and need no adapter:

    .. math::

        \ell_i = \mathrm{mean}_j \, \mathrm{huber} \left(
            \frac{d_s(i, j)}{\mathrm{mean} \, d_s} - \frac{d_t(i, j)}{\mathrm{mean} \, d_t}
            \right)

    over all j of the batch; the mean distance is over pairs of different points. Its
    mean over i is that of the authors' code. Under replicas the batch is the global
    one.

    Recommended weight: 25 (the authors'). Distances are relative to their mean, and the
    value is a mean over pairs, for features and batches of any size.

    Example:
        >>> kd.Term(kd.losses.DistanceRelation(), student="pool", teacher="pool")

    Source:
        Park et al. 2019, Relational knowledge distillation (RKD-D).
    """

    compares_samples = True
    match = Match.NOTHING
    recommended_weight = 25.0
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for features of any shape."""
        gap = _relative_distances(student, mask)
        gap = gap - _relative_distances(teacher, teacher_mask)
        return ops.mean(huber(gap), axis=-1)


def _relative_distances(features, mask):
    """Return distances over their mean, `(B, N)`; zeros where all points are equal."""
    apart = distances(relative(features, mask))
    # Over float16's largest number of pairs too.
    wide = widened(apart)
    different = ops.cast(wide > 0, wide.dtype)
    total, count = (
        ops.sum(strategies.gather(ops.sum(x, axis=-1))) for x in (wide, different)
    )
    mean = ops.cast(total / ops.maximum(count, 1.0), apart.dtype)
    return apart / ops.where(mean > 0, mean, 1.0)
