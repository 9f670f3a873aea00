"""Attention maps: where in the image a layer is active."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_finite
from keras_distill.adapters.match import Match
from keras_distill.losses._masking import inverse_fraction, of_both
from keras_distill.losses._vectors import by_location, peak
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class AttentionMap(DistillationLoss):
    r"""Squared distance of normalized spatial attention maps.

    A map holds the activity of each location over all channels, so teacher and student
    may have different channels and need no adapter but pooling of the larger map:

    .. math::

        \ell &= \mathrm{mean}_j \left(
            \frac{Q_{s,j}}{\lVert Q_s \rVert} - \frac{Q_{t,j}}{\lVert Q_t \rVert}
            \right)^2, \quad Q = \mathrm{vec}(F(A))

        F(A) &= \sum_c |A_c|^p \quad \text{or} \quad \max_c |A_c|^p

    This is the authors' code; the paper writes half the norm of the difference. A map
    that is zero everywhere stays zero. In a sequence `(B, L, D)` the locations are the
    L positions; those that are masked on either side are zero, and the mean is over
    the others.

    Recommended weight: 1000 for each pair of layers, which is the authors' beta, for their
    maps of 32x32, 16x16 and 8x8. On the sum over the H W locations, which has the same
    range for any map, it is 1000 / (H W): 1, 4 and 16 there, and 62 on maps of 4x4. For
    the pull that they have on a map of P locations it is `1000 * H * W / P`, and
    `kd.suggest_weights` finds one for your models.

    Args:
        power: p >= 1. `F_sum` is power 1; higher powers favor the most active
            locations. Default 2.
        mapping: `"sum"` (default) or `"max"` over the channels.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `power` is below 1, or `mapping` is unknown.

    Example:
        >>> kd.Term(kd.losses.AttentionMap(power=2), student="stack3", teacher="stack3")

    Source:
        Zagoruyko, Komodakis 2017, Paying more attention to attention.
    """

    match = Match.SPACE
    recommended_weight = 1000.0
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def __init__(self, power: float = 2.0, *, mapping: str = "sum", **kwargs):
        super().__init__(**kwargs)
        check_finite(power=power)
        if not power >= 1:
            raise ValueError(
                f"power must be at least 1, as the gradient of |A|^p is not finite at 0 "
                f"below it; got {power}. The paper uses 1, 2 and 4."
            )
        if mapping not in ("sum", "max"):
            raise ValueError(f"mapping must be 'sum' or 'max'; got {mapping!r}.")
        self.power = power
        self.mapping = mapping

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for maps `(B, H, W, C)` and sequences `(B, L, D)`."""
        mask = of_both(mask, teacher_mask)
        gap = self._attention(student, mask) - self._attention(teacher, mask)
        return ops.mean(ops.square(gap), axis=-1) * inverse_fraction(mask, gap.dtype)

    def _attention(self, features, mask):
        activity = by_location(features, "AttentionMap", mask)
        # The gradient of `ops.abs` at 0 is 1 on JAX.
        activity = activity * ops.stop_gradient(ops.sign(activity))
        activity = activity / peak(activity, axis=(1, 2))
        over_channels = ops.sum if self.mapping == "sum" else ops.max
        maps = over_channels(ops.power(activity, self.power), axis=-1)
        squares = ops.sum(ops.square(maps), axis=-1, keepdims=True)
        return maps / ops.sqrt(ops.where(squares > 0, squares, 1.0))
