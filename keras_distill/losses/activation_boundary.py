"""The sign of each neuron's value before the activation."""

import keras
from keras import ops

from keras_distill import adapters
from keras_distill._backend.number_checks import check_finite
from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import mean_per_token
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class ActivationBoundary(DistillationLoss):
    r"""Squared hinge loss on the sign of each neuron's value.

    Whether a neuron fires says more about a decision than how strongly. The student's
    value before the activation is pushed past the margin on the teacher's side of zero
    and left alone beyond it:

    .. math::

        \ell &= \mathrm{mean} \left(
            \rho \, \mathrm{relu}(\mu - F_s) + (1 - \rho) \, \mathrm{relu}(\mu + F_s)
            \right)^2

        \rho &= 1 \text{ where } F_t > 0, \text{ else } 0

    over height, width and channels; the paper sums. Tap the input of the activation, as
    in `kd.Tap("stack3", side="input")`. The adapter is a 1x1 convolution with batch
    normalization, as in the paper, which trains this loss in a stage before the labels.
    At the teacher's own values the loss is zero only where they lie beyond the margin.

    Recommended weight: 1.0, our own choice for the mean. A weight w of the paper's sum is
    `H * W * C * w` here; `kd.suggest_weights` finds one for your models.

    Args:
        margin: mu > 0. Default 1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `margin` is not above 0.

    Example:
        >>> before = kd.Tap("stack3", side="input")
        >>> kd.Term(kd.losses.ActivationBoundary(), student=before, teacher=before)

    Source:
        Heo et al. 2019, Knowledge transfer via distillation of activation boundaries
        formed by hidden neurons (AB).
    """

    def __init__(self, *, margin: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        check_finite(margin=margin)
        if not margin > 0:
            raise ValueError(
                f"margin must be above 0, or constant zeros would fit; got {margin}."
            )
        self.margin = margin

    def adapters(self, student, teacher):
        """Return pooling to one size and a connector to the teacher's channels."""
        pool, pool_teacher = Match.SPACE.infer(student, teacher)
        connector = adapters.Connector(teacher[-1], name="connector")
        return adapters.chain([pool, connector]), pool_teacher

    def call(self, teacher, student):
        """Return `(B,)` for vectors and maps, `(B, L)` for sequences."""
        fires = ops.cast(teacher > 0, student.dtype)
        hinge = fires * ops.relu(self.margin - student)
        hinge += (1.0 - fires) * ops.relu(self.margin + student)
        return mean_per_token(ops.square(hinge))
