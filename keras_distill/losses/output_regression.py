"""Output regression: the teacher's outputs themselves as targets."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class OutputRegression(DistillationLoss):
    r"""Mean squared error between the student's and the teacher's outputs.

    For models that predict numbers: regressors, embeddings, depth maps. A softmax over
    numbers that are no logits would lose their size.

    .. math::

        \ell = \frac{1}{K} \sum_{k=1}^{K} (f_{s,k} - f_{t,k})^2

    on the scale of `keras.losses.MeanSquaredError`, with no temperature. No adapter is
    inferred, as a student's numbers must be the teacher's.

    Recommended weight: 1.0, alongside the loss of the labels.

    Args:
        name, reduction, dtype: as in `DistillationLoss`.

    Example:
        >>> kd.losses.OutputRegression()(teacher_values, student_values)

    Source:
        Bucila, Caruana, Niculescu-Mizil 2006, Model compression.
    """

    match = Match.OUTPUTS
    predicts = "values"

    def call(self, teacher, student):
        """Return `(B,)` for outputs `(B, K)` or `(B,)`, `(B, L)` for `(B, L, K)`."""
        squares = ops.square(student - teacher)
        return ops.mean(squares, axis=-1) if len(squares.shape) > 1 else squares
