"""How the logit of the teacher's class depends on each pixel."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._pairs import normalised, vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class Jacobian(DistillationLoss):
    """Squared distance of rows of the Jacobian, each scaled to length 1.

    Nets that agree at a point and in how they change around it agree near it. Of the
    Jacobian one row is compared, that of the class that the teacher finds likeliest:

        || J_s / ||J_s|| - J_t / ||J_t|| ||^2,   J = d z_k / dx,  k = argmax z_t

    Tap `"class_gradient"` on both sides. The student is differentiated twice: a step
    costs about one more pass backwards through the student and one through the teacher,
    and as much memory again. Inputs of other sizes are pooled; the channels must be the
    same.

    Recommended weight: 1.0.

    Args:
        name, reduction, dtype: as in `DistillationLoss`.

    Example:
        >>> kd.Term(kd.losses.Jacobian(), "class_gradient", "class_gradient")

    Source:
        Srinivas, Fleuret 2018, Knowledge transfer with Jacobian matching; Czarnecki et
        al. 2017, Sobolev training for neural networks.
    """

    match = Match.SPACE

    def call(self, teacher, student):
        """Give `(B,)` for gradients of any shape."""
        gap = normalised(vectors(student)) - normalised(vectors(teacher))
        return ops.sum(ops.square(gap), axis=-1)
