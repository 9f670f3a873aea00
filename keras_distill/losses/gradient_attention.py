"""Which pixels a net's loss would answer to."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class GradientAttention(DistillationLoss):
    """Distance of the gradients of the labels' loss by the input.

    A pixel to which the loss answers strongly is one that the net attends to, and the
    student should attend to the teacher's:

        1/2 * || d CE(y, z_s) / dx - d CE(y, z_t) / dx ||_2

    Tap `"label_gradient"` on both sides. The student is differentiated twice: a step
    costs about one more pass backwards through the student and one through the teacher,
    and as much memory again. Inputs of other sizes are pooled; the channels must be the
    same.

    Recommended weight: 1, the best of 0.1, 1 and 10 on held-out digits; at 10 the
    student does best to answer to nothing.

    Args:
        name, reduction, dtype: as in `DistillationLoss`.

    Example:
        >>> taps = "label_gradient", "label_gradient"
        >>> kd.Term(kd.losses.GradientAttention(), *taps)

    Source:
        Zagoruyko, Komodakis 2017, Paying more attention to attention, section 3.2.
    """

    match = Match.SPACE

    def call(self, teacher, student):
        """Give `(B,)` for gradients of any shape."""
        return half_distance(teacher, student)


def half_distance(first, second):
    """Give half the Euclidean distance of each sample's tensors, `(B,)`."""
    gap = ops.reshape(second - first, (ops.shape(first)[0], -1))
    # At equal gradients the distance has no slope; 0 is the one that leaves it be.
    peak = ops.stop_gradient(ops.max(ops.abs(gap), axis=-1, keepdims=True))
    gap = gap / ops.where(peak > 0, peak, 1.0)
    squares = ops.sum(ops.square(gap), axis=-1)
    length = ops.sqrt(ops.where(squares > 0, squares, 1.0))
    return 0.5 * ops.where(squares > 0, length * peak[:, 0], 0.0)
