"""Whether two samples are of one class, by their distance."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.adapters.match import Match
from keras_distill.losses._pairs import (
    distances,
    everyone,
    normalised,
    squared_distances,
    vectors,
)
from keras_distill.losses.class_triplet import class_numbers
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class Verification(DistillationLoss):
    """Contrastive loss on pairs of the labels, beside a ranking that is distilled.

        value_i = mean_j  d(i, j)^2                      for j of i's class
                          max(0, margin - d(i, j))^2     for j of another

    over the others of the batch, d the distance of the student's features, scaled to
    length 1. It asks nothing of the teacher: a companion of `HardRank` and `SoftRank`
    for embeddings. Under replicas the batch is the global one.

    Recommended weight: 1.0.

    Args:
        margin: from which on samples of two classes count as told apart, above 0.
            Default 1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: the margin is not above 0.

    Example:
        >>> kd.Term(kd.losses.Verification(), student="embedding")

    Source:
        Hadsell et al. 2006, Dimensionality reduction by learning an invariant mapping;
        as a companion: Chen et al. 2018, DarkRank.
    """

    match = Match.NOTHING
    compares_teacher = False
    needs = ("labels",)

    def __init__(self, *, margin: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        if not margin > 0:
            raise ValueError(f"margin is above 0; got {margin}.")
        self.margin = margin

    def call(self, teacher, student, *, labels):
        """Give `(B,)` for features of any shape."""
        own = normalised(vectors(student))
        others = everyone(own)
        short = ops.relu(self.margin - distances(own, others))
        own_class, rows = (
            class_numbers(labels),
            strategies.local_rows(ops.shape(short)[0]),
        )
        same = own_class[:, None] == strategies.gather(own_class)[None]
        itself = rows[:, None] == ops.arange(ops.shape(short)[1])[None]
        values = ops.where(same, squared_distances(own, others), ops.square(short))
        values = ops.where(itself, 0.0, values)
        pairs = ops.cast(ops.shape(short)[1] - 1, values.dtype)
        return ops.sum(values, axis=-1) / ops.maximum(pairs, 1.0)

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "margin": self.margin}
