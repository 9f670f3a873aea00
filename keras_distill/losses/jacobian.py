"""The Jacobian: how the logit of the teacher's class depends on each pixel."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import unit_vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class Jacobian(DistillationLoss):
    r"""Squared distance of rows of the Jacobian, each scaled to length 1.

    Models that agree at a point and in their gradients there agree near it. One row of
    the Jacobian is compared, that of the teacher's predicted class:

    .. math::

        \ell &= \left\lVert
            \frac{J_s}{\lVert J_s \rVert} - \frac{J_t}{\lVert J_t \rVert} \right\rVert^2

        J &= \frac{\partial z_k}{\partial x}, \quad k = \arg\max z_t

    Tap `kd.Tap.input_gradient("first_class")` on both sides. The student is
    differentiated twice: a step costs about one more backward pass of the student and
    one of the teacher, and twice the memory. Inputs of different sizes are pooled; the
    channels must be the same.

    Recommended weight: 1.0. The sum over vectors of length 1 lies between 0 and 4 for inputs
    of any size.

    Example:
        >>> gradient = kd.Tap.input_gradient("first_class")
        >>> kd.Term(kd.losses.Jacobian(), student=gradient, teacher=gradient)

    Source:
        Srinivas, Fleuret 2018, Knowledge transfer with Jacobian matching; Czarnecki et
        al. 2017, Sobolev training for neural networks.
    """

    match = Match.SPACE
    takes_gradients = True

    def call(self, teacher, student):
        """Return `(B,)` for gradients of any shape."""
        gap = unit_vectors(student) - unit_vectors(teacher)
        return ops.sum(ops.square(gap), axis=-1)
