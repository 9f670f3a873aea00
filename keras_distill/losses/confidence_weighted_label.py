"""Labels weighted by the teacher's confidence in each sample."""

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.adapters.match import Match
from keras_distill.losses._entropy import at_label
from keras_distill.losses._masking import expanded, of_both
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.targets.target import label_rows


@keras.saving.register_keras_serializable(package="keras_distill")
class ConfidenceWeightedLabel(DistillationLoss):
    r"""Cross-entropy with the labels, weighted by the teacher's highest probability.

    What remains of distillation when the teacher contributes only the importance of
    each sample:

    .. math::

        \ell_i = -w_i \log \mathrm{softmax}(z_s)_y,
            \quad w_i = B \, \frac{\max_k p_{ik}}{\sum_u \max_k p_{uk}}

    with the label y and `p = softmax(z_t)`; the factor B, the size of the global batch,
    keeps the scale of the cross-entropy.

    Recommended weight: 1.0, in place of the labels (`label_weight=0`).

    Example:
        >>> loss = kd.losses.ConfidenceWeightedLabel()
        >>> loss(teacher_logits, student_logits, labels=labels)

    Source:
        Furlanello et al. 2018, Born-again neural networks (CWTM).
    """

    compares_samples = True
    match = Match.CLASSES
    predicts = "classes"
    needs = ("labels", "mask", "teacher_mask")

    def call(self, teacher, student, *, labels, mask, teacher_mask):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        log_q = ops.log_softmax(student, axis=-1)
        cross_entropy = -at_label(label_rows(labels, student), log_q)
        confidence = ops.max(ops.softmax(teacher, axis=-1), axis=-1)
        mean = _mean(confidence, of_both(mask, teacher_mask))
        # Without any valid token the mean is 0.
        return ops.divide_no_nan(cross_entropy * confidence, mean)


def _mean(values, mask):
    """Return the mean over the global batch, without masked tokens."""
    values = strategies.gather(values)
    if mask is None:
        return ops.mean(values)
    mask = strategies.gather(expanded(mask, values, values.dtype))
    mask = mask * ops.ones_like(values)
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1.0)
