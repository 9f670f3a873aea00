"""The teacher's layer as a target, with both sides normalized over the batch."""

import keras
from keras import ops

from keras_distill import strategies
from keras_distill._backend.number_checks import check_in
from keras_distill.losses._batch_moments import batch_normalized
from keras_distill.losses._masking import of_both
from keras_distill.losses._vectors import flatten, widened
from keras_distill.losses.distillation_loss import DistillationLoss

# The variance that a normalization adds, and the sum at which features are equal.
VARIANCE, EQUAL = 1e-4, 1e-7


@keras.saving.register_keras_serializable(package="keras_distill")
class NormalizedHint(DistillationLoss):
    r"""Log of the summed fourth powers of two layers' gap, normalized over the batch.

    Normalized by the batch alone, a projection of the student learns the relations
    between features in place of their size. The logarithm and the high power keep
    student and teacher apart where their capacities differ:

    .. math::

        \ell &= \log \left( 10^{-7}
            + \sum_{b,c} \left| n(r(f_s)) - n(f_t) \right|_{bc}^a \right)

        n(f) &= \frac{f - \mathrm{mean} \, f}{\sqrt{\mathrm{var} \, f + 10^{-4}}}

    with the mean and variance of a channel over the batch, under replicas the global
    one, and the adapter r, a projection trained with the student. It is one number, the
    same for all samples, and negative where features agree. Of maps and sequences each
    location counts as a sample; the source pools maps first.

    Recommended weight: 2.0, alongside soft targets at T = 1 and a label weight of 1 (the
    source's for ImageNet). In the logarithm a mean in place of the sum would change no
    gradient, so that the weight depends on no size.

    Args:
        power: a, from 1 to 8. Default 4.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: `power` is not a number.
        ValueError: `power` is out of range.

    Example:
        >>> kd.Term(kd.losses.NormalizedHint(), student="pool", teacher="pool")

    Source:
        Miles, Mikolajczyk 2024, Understanding the role of the projector in knowledge
        distillation (SRD), as in its code for ImageNet; that for transformers has the
        correlation of a channel over the batch, less 1, in place of the gap.
    """

    compares_samples = True
    recommended_weight = 2.0
    needs = ("mask", "teacher_mask")

    def __init__(self, *, power: float = 4.0, **kwargs):
        super().__init__(**kwargs)
        check_in(1, 8, power=power)
        self.power = power

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for features of any shape."""
        mask, dtype = of_both(mask, teacher_mask), student.dtype
        t, s = (
            batch_normalized(widened(x), mask, VARIANCE) for x in (teacher, student)
        )
        powers = flatten(ops.power(ops.abs(s - t), self.power))
        total = ops.sum(strategies.gather(ops.sum(powers, axis=-1)))
        value = ops.cast(ops.log(total + EQUAL), dtype)
        return ops.broadcast_to(value, ops.shape(student)[:1])
