"""The patterns that the channels of a layer respond to."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._masking import of_both
from keras_distill.losses._vectors import by_location, normalize
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class NeuronSelectivity(DistillationLoss):
    r"""Maximum mean discrepancy of the channels' activation patterns.

    Each channel of a map is a pattern over the locations; the student's patterns should
    be distributed like the teacher's, whatever their number and order:

    .. math::

        \ell &= \mathrm{mean}_{c,c'} \left(
            k(t_c, t_{c'}) + k(s_c, s_{c'}) - 2 k(s_c, t_{c'}) \right)

        k(a, b) &= \langle a, b \rangle^2

    with patterns scaled to length 1, computed from the C x C products of a sample. Maps
    of different sizes are pooled to the smaller.

    Recommended weight: 50 (RepDistiller's). With patterns of length 1 and means over pairs
    of channels, the value lies between 0 and 2 for a layer of any size, but patterns of
    more locations are less alike; `kd.suggest_weights` finds a weight for your models.

    Raises:
        ValueError: the tensors are vectors, which have no locations.

    Example:
        >>> kd.Term(kd.losses.NeuronSelectivity(), student="stack3", teacher="stack3")

    Source:
        Huang, Wang 2017, Like what you like: knowledge distill via neuron selectivity
        transfer (NST), polynomial kernel of degree 2.
    """

    match = Match.SPACE
    recommended_weight = 50.0
    needs = ("mask", "teacher_mask")

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for maps `(B, H, W, C)` and sequences `(B, L, D)`."""
        mask = of_both(mask, teacher_mask)
        s, t = _patterns(student, mask), _patterns(teacher, mask)
        return _kernel(t, t) + _kernel(s, s) - 2.0 * _kernel(s, t)


def _patterns(features, mask):
    """Return each channel's pattern over the P locations, `(B, C, P)`, of length 1."""
    locations = by_location(features, "NeuronSelectivity", mask)
    return normalize(ops.transpose(locations, (0, 2, 1)))


def _kernel(first, second):
    """Return the mean of the kernel over all pairs, `(B,)`."""
    products = ops.matmul(first, ops.transpose(second, (0, 2, 1)))
    return ops.mean(ops.square(products), axis=(1, 2))
