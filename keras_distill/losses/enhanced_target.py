"""The teacher's prediction with more weight on the label, for nets of other kinds."""

import keras
from keras import layers, ops

from keras_distill import adapters
from keras_distill._backend.number_checks import check_above
from keras_distill._backend.products import product
from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.targets.target import one_hot_labels


@keras.saving.register_keras_serializable(package="keras_distill")
class EnhancedTarget(DistillationLoss):
    r"""Cross-entropy with the teacher's prediction, enhanced on the label.

    Between nets of different kinds hidden layers do not compare, but what they predict
    does: a head on a stage of the student learns the teacher's logits, and less of its
    doubts, which another kind of net need not share:

    .. math::

        \ell = -(1 + p_y)^g \log q_y - \sum_{k \ne y} p_k \log q_k

    with `p = softmax(z_t)`, `q` of the student's logits or those of the head. With g = 1
    it is the cross-entropy with the teacher plus that with the label. The teacher's tap
    is its output. On a stage of the student the adapter is its head, a mean over the
    locations and a dense layer, trained with it and no part of the student. A layer of
    the shape of the teacher's logits is taken for logits and has no head.

    Recommended weight: 1.0, for each stage and for the output, alongside a label weight
    of 1 (the source's).

    Args:
        exponent: g, above 0. Default 1; the more, the more the label counts.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: `exponent` is not a number.
        ValueError: `exponent` is not above 0, or not finite.

    Example:
        >>> loss = kd.losses.EnhancedTarget()
        >>> kd.Term(loss, student="stack3", teacher=kd.Tap.output())

    Source:
        Hao et al. 2023, One-for-all: bridge the gap between heterogeneous architectures
        in knowledge distillation (OFA), its formula; the source's code has
        `(1 + p_y)^g - 1` on the label and `p_k^g` on the others. With g = 1, its
        default, that is the cross-entropy with the teacher alone.
    """

    match = Match.CLASSES
    predicts = "classes"
    needs = ("labels",)
    needs_one_class = True

    def __init__(self, exponent: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        check_above(0, exponent=exponent)
        self.exponent = exponent

    def adapters(self, student, teacher):
        """Return a head for a stage of the student, nothing for its logits."""
        if student[1:] == teacher[1:]:
            return None, None
        head = layers.Dense(teacher[-1], dtype="float32", name="head")
        return adapters.chain([_pooling(student, teacher), head]), None

    def call(self, teacher, student, *, labels):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        label = one_hot_labels(labels, student)
        p = ops.softmax(teacher, axis=-1)
        targets = ops.where(label > 0, ops.power(1.0 + p, self.exponent), p)
        return -ops.sum(product(targets, ops.log_softmax(student, axis=-1)), axis=-1)


def _pooling(student: tuple, teacher: tuple):
    """Return the mean over the locations that the teacher's logits lack, or None."""
    if len(student) == len(teacher) or len(teacher) > 2:
        return None
    kinds = {3: layers.GlobalAveragePooling1D, 4: layers.GlobalAveragePooling2D}
    if len(student) not in kinds:
        raise ValueError(
            f"no head reaches the teacher's logits {teacher} from the student's stage "
            f"{student}. Tap vectors, a sequence or a map, or pass an adapter layer."
        )
    pool = kinds[len(student)]
    return pool(data_format="channels_last", dtype="float32", name="pool")
