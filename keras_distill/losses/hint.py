"""Hints: the teacher's hidden layer as a target for a guided layer."""

import keras
from keras import ops

from keras_distill.losses._vectors import mean_per_token
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class Hint(DistillationLoss):
    r"""Squared distance of two layers, the student's passed through a regressor.

    The adapter is the regressor r, trained with the student:

    .. math::

        \ell = \frac{1}{2} \, \mathrm{mean} \, (F_t - r(F_s))^2

    The paper sums over the layer; here the mean is taken over height, width and
    channels, as in the common code, so that the weight does not depend on the size of a
    layer. Sequences `(B, L, D)` have one value per token, the mean over the D channels.

    Recommended weight: 200 (100 for the mean without the half in RepDistiller). The
    paper's form, half the sum, is H W C times this mean: its weight of 1 is
    `weight=H * W * C` here. `kd.suggest_weights` finds a weight for your models.

    Example:
        >>> kd.Term(kd.losses.Hint(), student="stack2", teacher="stack3")

    Source:
        Romero et al. 2015, FitNets: hints for thin deep nets.
    """

    recommended_weight = 200.0

    def call(self, teacher, student):
        """Return `(B,)` for vectors and maps, `(B, L)` for sequences."""
        return 0.5 * mean_per_token(ops.square(student - teacher))
