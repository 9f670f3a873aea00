"""Samples of one class nearer to each other than those of another."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.pairs import distances, everyone, normalised, vectors
from keras_distill.losses.triplets import triplet_margin


@keras.saving.register_keras_serializable(package="keras_distill")
class ClassTriplet(DistillationLoss):
    """Margin loss on triplets of the labels, beside a ranking that is distilled.

        value_i = mean_{(j, k)} max(0, d(i, j) - d(i, k) + margin)

    over j of i's class and k of another, d the distance of the student's features,
    scaled to length 1. It asks nothing of the teacher: a companion of `HardRank` and
    `SoftRank` for embeddings. Under replicas the batch is the global one.

    Recommended weight: 1.0.

    Args:
        margin: between the distances, 0 or more. Default 0.3.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: the margin is negative.

    Example:
        >>> kd.Term(kd.losses.ClassTriplet(), student="embedding")

    Source:
        Schroff et al. 2015, FaceNet; as a companion: Chen et al. 2018, DarkRank.
    """

    match = "nothing"
    compares_teacher = False
    needs = ("labels",)

    def __init__(self, *, margin: float = 0.3, **kwargs):
        super().__init__(**kwargs)
        if margin < 0:
            raise ValueError(f"margin is 0 or more; got {margin}.")
        self.margin = margin

    def call(self, teacher, student, *, labels):
        """Give `(B,)` for features of any shape."""
        own = normalised(vectors(student))
        near = distances(own, everyone(own))
        known = ops.stack(pairs_by_class(labels, near), axis=1)
        return triplet_margin(near, known, _in_and_out, self.margin)

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "margin": self.margin}


def pairs_by_class(labels, near):
    """Give 1 for others of the same class, and 1 for those of another, `(B, N)` each."""
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) > 1:
        labels = ops.argmax(labels, -1) if labels.shape[-1] > 1 else labels[:, 0]
    labels = ops.cast(labels, "int32")
    same = ops.cast(labels[:, None] == strategies.gather(labels)[None], near.dtype)
    rows = strategies.own_rows(ops.shape(near)[0])
    itself = ops.cast(rows[:, None] == ops.arange(ops.shape(near)[1])[None], near.dtype)
    return same - itself, 1.0 - same


def _in_and_out(known):
    return known[0][:, None] * known[1][None, :]
