"""A lower bound of the mutual information of two layers."""

import keras
from keras import ops

from keras_distill import adapters
from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import mean_per_token
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class VariationalInformation(DistillationLoss):
    r"""Negative log-likelihood of the teacher's layer, given the student's.

    A regressor predicts the teacher's layer as a Gaussian with one variance per channel.
    Channels that the student can't predict get a large variance and little gradient:

    .. math::

        \ell = \frac{1}{2} \, \mathrm{mean} \left(
            \log v_c + \frac{(F_t - m(F_s))^2}{v_c} \right)

    over height, width and channels, up to a constant; it may be negative. The adapter
    is `kd.adapters.GaussianRegressor`.

    Recommended weight: 1.0 (RepDistiller's, for this mean). A weight w of the paper's sum
    over the layer is `H * W * C * w` here; `kd.suggest_weights` finds one for your models.

    Raises:
        ValueError: the adapter does not return a mean and a variance per channel.

    Example:
        >>> kd.Term(kd.losses.VariationalInformation(), "stack3", "stack3")

    Source:
        Ahn et al. 2019, Variational information distillation for knowledge transfer
        (VID).
    """

    match = Match.SPACE

    def adapters(self, student, teacher):
        """Return pooling to one size and a regressor of the teacher's layer."""
        pool, pool_teacher = Match.SPACE.infer(student, teacher)
        regressor = adapters.GaussianRegressor(teacher[-1], name="regressor")
        return adapters.chain([pool, regressor]), pool_teacher

    def call(self, teacher, student):
        """Return `(B,)`, for sequences `(B, L)`.

        The student's tensor is means and variances, `(..., 2C)`.
        """
        if student.shape[-1] != 2 * teacher.shape[-1]:
            raise ValueError(
                "VariationalInformation needs a mean and a variance for each of the "
                f"teacher's {teacher.shape[-1]} channels; the adapter returns "
                f"{student.shape[-1]}. Use adapter='auto' or a layer that ends in "
                "kd.adapters.GaussianRegressor."
            )
        mean, variance = ops.split(student, 2, axis=-1)
        values = ops.log(variance) + ops.square(teacher - mean) / variance
        return 0.5 * mean_per_token(values)
