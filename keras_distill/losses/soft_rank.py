"""How likely every order of the nearest samples is."""

from __future__ import annotations

import itertools

import keras
import numpy as np
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._scores import LAST, in_order_of, scores
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class SoftRank(DistillationLoss):
    """Divergence of the probabilities of all orders of the nearest samples.

    Scores give every order of a list a probability, by the model of Plackett and Luce;
    the student's should be the teacher's:

        KL(P_t || P_s) over all n! orders of the teacher's n nearest,
        P(order) = prod_r exp(S_r) / sum_{r' >= r} exp(S_r'),
        S = -alpha |f_i - f_j|^beta

    with features scaled to length 1. The sum over n! orders is taken over the 2^n sets
    that may have been ranked so far, which is the same number. Under replicas the
    nearest are those of the global batch.

    Recommended weight: 1.0.

    Args:
        items: n, from 2 to 10. Default 5.
        scale: alpha > 0. Default 3.
        power: beta >= 1. Default 3.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: items, scale or power out of range.

    Example:
        >>> kd.Term(kd.losses.SoftRank(), student="embedding", teacher="embedding")

    Source:
        Chen et al. 2018, DarkRank: accelerating deep metric learning via cross sample
        similarities transfer, soft transfer.
    """

    match = Match.NOTHING

    def __init__(
        self, *, items: int = 5, scale: float = 3.0, power: float = 3.0, **kwargs
    ):
        super().__init__(**kwargs)
        if not 2 <= items <= 10 or not scale > 0 or power < 1:
            raise ValueError(
                "items is from 2 to 10, scale above 0 and power 1 or more; got "
                f"{items}, {scale} and {power}."
            )
        self.items = items
        self.scale = scale
        self.power = power

    def call(self, teacher, student):
        """Give `(B,)` for features of any shape."""
        items, total = self.items, 0.0
        known, own = (scores(x, self.scale, self.power) for x in (teacher, student))
        # In a small batch the list ends in items that neither net would ever draw.
        known, own = (
            ops.pad(
                in_order_of(known, x, items), [[0, 0], [0, items]], "constant", LAST
            )
            for x in (known, own)
        )
        known, own = (x[:, None, :items] for x in (known, own))
        reached = ops.zeros_like(known[:, :, 0])
        for done in range(items - 1):
            # (B, sets, items): what comes next, where `done` of them are ranked.
            ranked = ops.cast(_sets(items, done), known.dtype)
            log_p, log_q = (
                ops.log_softmax(ops.where(ranked > 0, LAST, x), axis=-1)
                for x in (known, own)
            )
            p = ops.where(ranked > 0, 0.0, ops.exp(log_p))
            gaps = ops.sum(p * (log_p - log_q), axis=-1)
            total = total + ops.sum(ops.exp(reached) * gaps, axis=-1)
            steps = ops.reshape(reached[..., None] + log_p, (ops.shape(log_p)[0], -1))
            reached = ops.logsumexp(
                ops.take(steps, _ways(items, done), axis=1), axis=-1
            )
        return total

    def get_config(self) -> dict:
        """Give the arguments."""
        config = {"items": self.items, "scale": self.scale, "power": self.power}
        return {**super().get_config(), **config}


def _sets(items: int, size: int) -> np.ndarray:
    """Give each set of a size as ones in a row, `(sets, items)`."""
    sets = list(itertools.combinations(range(items), size))
    rows = np.zeros((len(sets), items), "float32")
    for row, members in zip(rows, sets, strict=True):
        row[list(members)] = 1.0
    return rows


def _ways(items: int, size: int) -> np.ndarray:
    """Give how each larger set is reached: places in the flat `(sets, items)`."""
    place = {s: i for i, s in enumerate(itertools.combinations(range(items), size))}
    return np.array(
        [
            [
                place[tuple(x for x in larger if x != last)] * items + last
                for last in larger
            ]
            for larger in itertools.combinations(range(items), size + 1)
        ]
    )
