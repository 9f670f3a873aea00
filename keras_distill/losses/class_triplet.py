"""Samples of one class nearer to each other than to those of another."""

import keras
from keras import ops

from keras_distill import strategies
from keras_distill._backend.number_checks import check_in
from keras_distill.adapters.match import Match
from keras_distill.losses._triplets import triplet_margin
from keras_distill.losses._vectors import distances, unit_vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class ClassTriplet(DistillationLoss):
    r"""Margin loss on triplets of the labels, a companion of the ranking losses.

    .. math::

        \ell_i = \mathrm{mean}_{(j, k)} \max(0, d(i, j) - d(i, k) + \mathrm{margin})

    over j of i's class and k of another, where d is the distance of the student's
    features scaled to length 1. It does not use the teacher: combine it with `HardRank`
    or `SoftRank` for embeddings. Under replicas the batch is the global one.

    Recommended weight: 1.0.

    Args:
        margin: between the distances, 0 or more. Default 0.3.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `margin` is negative.

    Example:
        >>> kd.Term(kd.losses.ClassTriplet(), student="embedding")

    Source:
        Schroff et al. 2015, FaceNet; as a companion: Chen et al. 2018, DarkRank.
    """

    compares_samples = True
    match = Match.NOTHING
    compares_teacher = False
    needs = ("labels", "mask")
    masked_scores = ("scores",)
    needs_one_class = True

    def __init__(self, *, margin: float = 0.3, **kwargs):
        super().__init__(**kwargs)
        check_in(0, margin=margin)
        self.margin = margin

    def call(self, teacher, student, *, labels, mask):
        """Return `(B,)` for features of any shape."""
        apart = distances(unit_vectors(student, mask))
        labels, rows = class_indices(labels), strategies.local_rows(ops.shape(apart)[0])
        classes = strategies.gather(labels)
        indices = ops.arange(ops.shape(classes)[0])

        def is_nearer(anchor):
            same = ops.logical_and(classes == anchor[0], indices != anchor[1])
            return ops.logical_and(same[:, None], (classes != anchor[0])[None, :])

        anchors = ops.stack([labels, ops.cast(rows, "int32")], axis=1)
        return triplet_margin(apart, anchors, is_nearer, self.margin)


def class_indices(labels):
    """Return class indices, `(B,)`, of labels in any form that Keras accepts."""
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) > 1:
        labels = ops.argmax(labels, -1) if labels.shape[-1] > 1 else labels[:, 0]
    return ops.cast(labels, "int32")
