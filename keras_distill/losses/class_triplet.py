"""Samples of one class nearer to each other than those of another."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.adapters.match import Match
from keras_distill.losses._pairs import distances, everyone, normalised, vectors
from keras_distill.losses._triplets import triplet_margin
from keras_distill.losses.distillation_loss import DistillationLoss


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

    match = Match.NOTHING
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
        own_class, rows = class_numbers(labels), strategies.own_rows(ops.shape(near)[0])
        classes = strategies.gather(own_class)
        places = ops.arange(ops.shape(classes)[0])

        def in_and_out(anchor):
            same = ops.logical_and(classes == anchor[0], places != anchor[1])
            return ops.logical_and(same[:, None], (classes != anchor[0])[None, :])

        known = ops.stack([own_class, ops.cast(rows, "int32")], axis=1)
        return triplet_margin(near, known, in_and_out, self.margin)

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "margin": self.margin}


def class_numbers(labels):
    """Give the classes of labels in any form that Keras takes, `(B,)`."""
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) > 1:
        labels = ops.argmax(labels, -1) if labels.shape[-1] > 1 else labels[:, 0]
    return ops.cast(labels, "int32")
