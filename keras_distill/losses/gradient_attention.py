"""Gradient attention: the pixels that the loss is sensitive to."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import peak
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class GradientAttention(DistillationLoss):
    r"""Distance of the gradients of the labels' loss by the input.

    A model attends to the pixels to which its loss is sensitive, and the student should
    attend to the teacher's:

    .. math::

        \ell = \frac{1}{2} \left\lVert
            \frac{\partial \, \mathrm{CE}(y, z_s)}{\partial x}
            - \frac{\partial \, \mathrm{CE}(y, z_t)}{\partial x} \right\rVert_2

    Tap `kd.Tap.input_gradient()` on both sides. The student is differentiated twice: a
    step costs about one more backward pass of the student and one of the teacher, and
    twice the memory. Inputs of different sizes are pooled; their channels must agree.

    Recommended weight: 1, the best of 0.1, 1 and 10 on held-out digits of 8x8; at 10 the
    student does best to be sensitive to nothing. The distance has the scale of the
    models' gradients; `kd.suggest_weights` finds a weight for yours.

    Example:
        >>> gradient = kd.Tap.input_gradient()
        >>> kd.Term(kd.losses.GradientAttention(), student=gradient, teacher=gradient)

    Source:
        Zagoruyko, Komodakis 2017, Paying more attention to attention, section 3.2.
    """

    match = Match.SPACE
    takes_gradients = True

    def call(self, teacher, student):
        """Return `(B,)` for gradients of any shape."""
        return half_distance(teacher, student)


def half_distance(first, second):
    """Return half the Euclidean distance of each sample's tensors, `(B,)`."""
    gap = ops.reshape(second - first, (ops.shape(first)[0], -1))
    scale = peak(gap, axis=-1)
    squares = ops.sum(ops.square(gap / scale), axis=-1)
    length = ops.sqrt(ops.where(squares > 0, squares, 1.0)) * scale[:, 0]
    # At equal tensors the distance has no gradient; 0 leaves the student unchanged.
    return 0.5 * ops.where(squares > 0, length, 0.0)
