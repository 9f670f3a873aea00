"""The teacher's standardized layer as a target, reached by an orthogonal projection."""

import keras
from keras import ops

from keras_distill import adapters
from keras_distill.adapters.match import Match
from keras_distill.losses._batch_moments import batch_normalized
from keras_distill.losses._masking import of_both
from keras_distill.losses._vectors import mean_per_token
from keras_distill.losses.distillation_loss import DistillationLoss

VARIANCE = 1e-5


@keras.saving.register_keras_serializable(package="keras_distill")
class OrthogonalHint(DistillationLoss):
    r"""Squared distance of a rotated student from the standardized teacher.

    A free projection can learn the teacher's features in place of the student. One with
    orthonormal rows keeps the student's distances and angles, so that the student itself
    has to learn them:

    .. math::

        \ell &= \mathrm{mean} \, (n(f_t) - f_s W)^2, \quad W W^\top = I

        n(f) &= \frac{f - \mathrm{mean} \, f}{\sqrt{\mathrm{var} \, f + 10^{-5}}}

    with the mean and variance of each of the teacher's channels over the batch, under
    replicas the global one, and each location as a sample. The mean of squares is over
    height, width and channels. The adapter is `kd.adapters.OrthogonalProjection`.

    Recommended weight: 1.0 (ours, for the mean). A weight w of a sum over the layer is
    `H * W * C * w` here; `kd.suggest_weights` finds one for your models.

    Example:
        >>> kd.Term(kd.losses.OrthogonalHint(), student="pool", teacher="pool")

    Source:
        Miles, Elezi, Deng 2024, VkD: improving knowledge distillation using orthogonal
        projections, with the standardization that it has for classifiers. The source's
        code has the smooth L1 distance, half the square where a gap is below 1, and for
        classifiers normalizes the pooled teacher over the channels of each sample; for
        detectors over the batch, and the student too.
    """

    compares_samples = True
    needs = ("mask", "teacher_mask")

    def adapters(self, student, teacher):
        """Return pooling to one size, and the student's projection."""
        pool, pool_teacher = Match.SPACE.infer(student, teacher)
        projection = adapters.OrthogonalProjection(teacher[-1], name="projection")
        return adapters.chain([pool, projection]), pool_teacher

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for vectors and maps, `(B, L)` for sequences."""
        target = batch_normalized(teacher, of_both(mask, teacher_mask), VARIANCE)
        return mean_per_token(ops.square(target - student))
