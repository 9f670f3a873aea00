"""Soft targets, weighted by how far the student is behind on each sample."""

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill.losses._entropy import at_label
from keras_distill.losses.soft_target import SoftTarget
from keras_distill.targets.target import LOG_ZERO, label_rows

EPSILON = 1e-7


@keras.saving.register_keras_serializable(package="keras_distill")
class WeightedSoftTarget(SoftTarget):
    r"""Soft targets times a weight of each sample, from both models' label losses.

    Soft targets trade bias for variance, and on samples that the student has learnt as
    well as the teacher they add mostly bias. Each sample's divergence D weighs

    .. math::

        \ell = \left( 1 - \exp \frac{-\mathrm{CE}_s}{\mathrm{CE}_t + 10^{-7}} \right) D,
            \quad \mathrm{CE} = -\log \mathrm{softmax}(z)_y

    with D of `SoftTarget` and both cross-entropies at T = 1. No gradient flows through
    the weight. It is 0.63 where both have the same loss, and 0 where the student is
    right and sure.

    Recommended weight: 2.5, alongside a label weight of 1 and T = 2 (ours, by the
    source's code; the weight of a sample is below 1).

    Args:
        temperature, target, name, reduction, dtype: as in `SoftTarget`.

    Example:
        >>> loss = kd.losses.WeightedSoftTarget(2.0)
        >>> loss(teacher_logits, student_logits, labels=labels)

    Source:
        Zhou et al. 2021, Rethinking soft labels for knowledge distillation: a
        bias-variance tradeoff perspective (WSLD). The source's code has the
        cross-entropy with the soft labels in place of D; the gradient is the same.
    """

    masked_scores = ()
    recommended_weight = 2.5

    def __init__(self, temperature: float | LearningRateSchedule = 4.0, **kwargs):
        super().__init__(temperature, **kwargs)
        self.needs = tuple(dict.fromkeys((*self.needs, "labels")))

    def call(self, teacher, student, *, labels, **context):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        values = super().call(teacher, student, labels=labels, **context)
        teacher, student = (self._label_loss(z, labels) for z in (teacher, student))
        ratio = student / (teacher + EPSILON)
        return ops.stop_gradient(1.0 - ops.exp(-ratio)) * values

    def _label_loss(self, logits, labels):
        """Return the cross-entropy with the labels, `(...)`, finite for any logits."""
        log_p = ops.log_softmax(ops.cast(logits, self.dtype), axis=-1)
        return -at_label(label_rows(labels, log_p), ops.maximum(log_p, LOG_ZERO))
