"""On which side of zero each neuron lies."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill import adapters
from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class ActivationBoundary(DistillationLoss):
    """Squared hinge of the student's values, on the side where the teacher's lie.

    Whether a neuron fires says more about a decision than how much. The student's value
    before the activation is pushed past the margin on the teacher's side and left alone
    beyond it:

        mean (rho * relu(mu - F_s) + (1 - rho) * relu(mu + F_s))^2,   rho = 1[F_t > 0]

    over height, width and channels; the paper sums. Tap what goes into the activation,
    as `kd.Tap("stack3", side="input")`. The adapter is a 1x1 convolution with batch
    normalisation, as in the paper. A stage of its own before labels, there. At the
    teacher's own values it is zero only beyond the margin.

    Recommended weight: 1.0, our own choice for the mean.

    Args:
        margin: mu > 0. Default 1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: the margin is not above 0.

    Example:
        >>> before = kd.Tap("stack3", side="input")
        >>> kd.Term(kd.losses.ActivationBoundary(), student=before, teacher=before)

    Source:
        Heo et al. 2019, Knowledge transfer via distillation of activation boundaries
        formed by hidden neurons (AB).
    """

    def __init__(self, *, margin: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        if not margin > 0:
            raise ValueError(
                f"margin is above 0, as else constant zeros fit; got {margin}."
            )
        self.margin = margin

    def adapters(self, student, teacher):
        """Give pooling to one size, and a connector to the teacher's channels."""
        pool, pool_teacher = Match.SPACE.infer(student, teacher)
        connector = adapters.Connector(teacher[-1], name="connector")
        return adapters.chain([pool, connector]), pool_teacher

    def call(self, teacher, student):
        """Give `(B,)` for features of any shape."""
        fires = ops.cast(teacher > 0, student.dtype)
        short = fires * ops.relu(self.margin - student)
        short += (1.0 - fires) * ops.relu(self.margin + student)
        return ops.mean(ops.square(short), axis=tuple(range(1, len(short.shape))))

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "margin": self.margin}
