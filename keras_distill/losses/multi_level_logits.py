"""Predictions at several temperatures: of samples, between samples, between classes."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.adapters.match import Match
from keras_distill.losses._entropy import absent_on_both, entropy_terms
from keras_distill.losses._masking import expanded, of_both
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.temperature import HIGH, check_temperature


@keras.saving.register_keras_serializable(package="keras_distill")
class MultiLevelLogits(DistillationLoss):
    r"""Soft targets at several temperatures, and the products of predictions.

    At each temperature predictions are compared on three levels, of a sample, between
    the samples of the batch and between the classes:

    .. math::

        \sum_T \left[ \frac{T^2}{B} \sum_i \mathrm{KL}(p_i \,\|\, q_i)
            + \frac{1}{B} \lVert P P^\top - Q Q^\top \rVert^2
            + \frac{1}{K} \lVert P^\top P - Q^\top Q \rVert^2 \right]

    with the rows of P and Q, `(B, K)`, `p = softmax(z_t / T)` and `q` the student's. The
    mean of this loss over the batch is that sum; the second part of a sample is B times
    its row's, the third is the same for all. Under replicas the batch is the global one,
    and the tokens of sequences count as samples. The B x B products of a batch are held,
    but no K x K ones. The source also leaves out the samples and classes that the
    teacher is most sure of, and adds a strong augmentation: these are not in the loss.
    In the source's code its masks multiply the mean of the whole batch, which halves it.

    Recommended weight: 1.0, alongside a label weight of 1.

    Args:
        temperatures: above 0 and at most 20 each. Default 2, 3, 4, 5, 6.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: `temperatures` is not a sequence of numbers.
        ValueError: it is empty, or one is out of range.

    Example:
        >>> kd.losses.MultiLevelLogits((2.0, 4.0))(teacher_logits, student_logits)

    Source:
        Jin, Wang, Lin 2023, Multi-level logit distillation (MLKD).
    """

    compares_samples = True
    match = Match.CLASSES
    predicts = "classes"
    needs = ("mask", "teacher_mask")

    def __init__(
        self, temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0), **kwargs
    ):
        super().__init__(**kwargs)
        if isinstance(temperatures, str) or not isinstance(temperatures, Sequence):
            raise TypeError(
                "temperatures is a sequence of numbers, such as (2.0, 4.0); got "
                f"{temperatures!r}."
            )
        if not temperatures:
            raise ValueError("temperatures is empty: at least one is needed.")
        for temperature in temperatures:
            check_temperature(temperature, self.dtype, HIGH, "MultiLevelLogits")
        self.temperatures = tuple(temperatures)

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        # Classes that are -inf on both sides are left out, as masked tokens are.
        counts = 1.0 - ops.cast(absent_on_both(student, teacher), student.dtype)
        mask = of_both(mask, teacher_mask)
        if mask is not None:
            counts = counts * expanded(mask, counts, student.dtype)
        return sum(
            t**2 * _of_samples(teacher / t, student / t)
            + _of_products(teacher / t, student / t, counts)
            for t in self.temperatures
        )


def _of_samples(teacher, student):
    """Return each sample's divergence, `(...)`."""
    log_p, log_q = (ops.log_softmax(z, axis=-1) for z in (teacher, student))
    return ops.sum(entropy_terms(log_p, log_q), axis=-1)


def _of_products(teacher, student, counts):
    """Return the parts between samples and between classes, `(...)`.

    With the rows d of P - Q and s of P + Q, `P P^T - Q Q^T` is the symmetric part of
    `d s^T`, and `||P^T P - Q^T Q||^2` half of `<d d^T, s s^T> + <d s^T, s d^T>`: without
    the products of classes, and exact where p and q are close.
    """
    p, q = (ops.softmax(z, axis=-1) for z in (teacher, student))
    own = [ops.reshape(x * counts, (-1, x.shape[-1])) for x in (p - q, p + q)]
    d, s = map(strategies.gather, own)
    across = ops.matmul(own[0], ops.transpose(s)), ops.matmul(own[1], ops.transpose(d))
    samples = ops.sum(ops.square(0.5 * (across[0] + across[1])), axis=-1)
    d_d, s_s = (ops.matmul(x, ops.transpose(x)) for x in (d, s))
    d_s = ops.matmul(d, ops.transpose(s))
    classes = 0.5 * ops.sum(d_d * s_s + d_s * ops.transpose(d_s))
    occurs = ops.max(strategies.gather(ops.reshape(counts, (-1, p.shape[-1]))), axis=0)
    classes = ops.divide_no_nan(classes, ops.sum(ops.cast(occurs > 0, classes.dtype)))
    return ops.reshape(samples, ops.shape(p)[:-1]) + classes
