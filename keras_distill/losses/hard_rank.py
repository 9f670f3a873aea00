"""The order in which a teacher ranks the other samples by nearness."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._scores import in_order_of, scores
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class HardRank(DistillationLoss):
    """Negative log-likelihood of the teacher's ranking under the student's scores.

    For each sample the others are a list to rank, the nearest first. The student should
    find the teacher's order the likeliest, by the model of Plackett and Luce:

        -sum_r log(exp(S_r) / sum_{r' >= r} exp(S_r')),   S = -alpha |f_i - f_j|^beta

    with r running through the teacher's order and features scaled to length 1. It is
    not zero where the student equals the teacher, and has no second derivative. Under
    replicas the list is the global batch.

    Recommended weight: 1.0, divided by the length of the list where that is long.

    Args:
        items: of the list, the teacher's nearest. Default: all others.
        scale: alpha > 0. Default 3.
        power: beta >= 1. Default 3.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: items, scale or power out of range, or scores that would go below
            -80.

    Example:
        >>> kd.Term(kd.losses.HardRank(), student="embedding", teacher="embedding")

    Source:
        Chen et al. 2018, DarkRank: accelerating deep metric learning via cross sample
        similarities transfer, hard transfer.
    """

    match = Match.NOTHING

    def __init__(
        self,
        *,
        items: int | None = None,
        scale: float = 3.0,
        power: float = 3.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if (items is not None and items < 2) or not scale > 0 or power < 1:
            raise ValueError(
                "items is 2 or more or None, scale is above 0 and power 1 or more; got "
                f"{items}, {scale} and {power}."
            )
        if scale * 2**power > 80:
            raise ValueError(
                "Scores go down to -scale * 2^power, whose exponential must be above 0 in "
                f"float32: at most 80; got scale {scale} and power {power}."
            )
        self.items = items
        self.scale = scale
        self.power = power

    def call(self, teacher, student):
        """Give `(B,)` for features of any shape."""
        known, own = (scores(x, self.scale, self.power) for x in (teacher, student))
        return _surprise(in_order_of(known, own, self.items))

    def get_config(self) -> dict:
        """Give the arguments."""
        config = {"items": self.items, "scale": self.scale, "power": self.power}
        return {**super().get_config(), **config}


def _surprise(ranked):
    """Give -log P of the order that scores `(B, n)` stand in, `(B,)`.

    Value and slope are found at once, which holds fewer matrices than the chain rule.
    """

    @ops.custom_gradient
    def surprise(ranked):
        # Scores lie between -scale * 2^power and 0, so no exponential is lost; summed
        # from the last to the first, small ones are not either.
        drawn = ops.exp(ranked)
        left = ops.flip(ops.cumsum(ops.flip(drawn, 1), axis=1), 1)
        slopes = drawn * ops.cumsum(1.0 / left, axis=1) - 1.0
        values = ops.sum(ops.log(left) - ranked, axis=-1)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return upstream[:, None] * slopes

        return values, gradient

    return surprise(ranked)
