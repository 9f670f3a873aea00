"""Verification: whether two samples are of one class, by their distance."""

import keras
from keras import ops

from keras_distill import strategies
from keras_distill._backend.number_checks import check_above
from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import (
    distances,
    squared_distances,
    unit_vectors,
    with_itself,
)
from keras_distill.losses.class_triplet import class_indices
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class Verification(DistillationLoss):
    r"""Contrastive loss on pairs of the labels, a companion of the ranking losses.

    .. math::

        \ell_i &= \mathrm{mean}_j \, v(i, j)

        v(i, j) &= d(i, j)^2 \text{ for } j \text{ of the class of } i

        v(i, j) &= \max(0, \mathrm{margin} - d(i, j))^2 \text{ for } j \text{ of another}

    over the others of the batch, where d is the distance of the student's features
    scaled to length 1. It does not use the teacher: combine it with `HardRank` or
    `SoftRank` for embeddings. Under replicas the batch is the global one.

    Recommended weight: 1.0.

    Args:
        margin: distance beyond which samples of different classes add no loss, above 0.
            Default 1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `margin` is not above 0.

    Example:
        >>> kd.Term(kd.losses.Verification(), student="embedding")

    Source:
        Hadsell et al. 2006, Dimensionality reduction by learning an invariant mapping;
        as a companion: Chen et al. 2018, DarkRank.
    """

    compares_samples = True
    match = Match.NOTHING
    compares_teacher = False
    needs = ("labels", "mask")
    masked_scores = ("scores",)
    needs_one_class = True

    def __init__(self, *, margin: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        check_above(0, margin=margin)
        self.margin = margin

    def call(self, teacher, student, *, labels, mask):
        """Return `(B,)` for features of any shape."""
        vectors, labels = unit_vectors(student, mask), class_indices(labels)
        hinge = ops.relu(self.margin - distances(vectors))
        same = labels[:, None] == strategies.gather(labels)[None]
        values = ops.where(same, squared_distances(vectors), ops.square(hinge))
        values = ops.where(with_itself(values), 0.0, values)
        pairs = ops.cast(ops.shape(hinge)[1] - 1, values.dtype)
        return ops.sum(values, axis=-1) / ops.maximum(pairs, 1.0)
