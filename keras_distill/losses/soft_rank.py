"""The probability of every order of the nearest samples."""

import itertools

import keras
import numpy as np
from keras import ops

from keras_distill._backend.number_checks import check_above, check_in, check_integers
from keras_distill.adapters.match import Match
from keras_distill.losses._scores import LAST, sorted_scores
from keras_distill.losses._vectors import unit_vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class SoftRank(DistillationLoss):
    r"""Divergence of the probabilities of all orders of the nearest samples.

    Scores assign a probability to every order of a list, by the Plackett-Luce model;
    the student's should match the teacher's:

    .. math::

        \ell_i &= \mathrm{KL}(P_t \,\|\, P_s)
            = \sum_{\mathrm{orders}} P_t \, (\log P_t - \log P_s)

        P(\mathrm{order}) &= \prod_r \frac{\exp(S_r)}{\sum_{r' \ge r} \exp(S_{r'})},
            \quad S = -\alpha \, \lVert f_i - f_j \rVert^\beta

    over all n! orders of the teacher's n nearest, with features scaled to length 1. The
    sum is computed exactly as one over the 2^n sets of samples that may have been
    ranked so far. Under replicas the nearest are those of the global batch.

    Recommended weight: 1.0.

    Args:
        items: n, from 2 to 10. Default 5.
        scale: alpha > 0. Default 3.
        power: beta >= 1. Default 3.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `items`, `scale` or `power` is out of range.

    Example:
        >>> kd.Term(kd.losses.SoftRank(), student="embedding", teacher="embedding")

    Source:
        Chen et al. 2018, DarkRank: accelerating deep metric learning via cross sample
        similarities transfer, soft transfer.
    """

    compares_samples = True
    match = Match.NOTHING
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def __init__(
        self, *, items: int = 5, scale: float = 3.0, power: float = 3.0, **kwargs
    ):
        super().__init__(**kwargs)
        check_integers(2, items=items)
        check_in(2, 10, items=items)
        check_above(0, scale=scale)
        check_in(1, power=power)
        self.items = items
        self.scale = scale
        self.power = power

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for features of any shape."""
        items, total = self.items, 0.0
        sides = unit_vectors(teacher, teacher_mask), unit_vectors(student, mask)
        sides = sorted_scores(*sides, self.scale, self.power, items)
        # In a small batch the list ends in items that neither model would ever draw.
        padding = [[0, 0], [0, items]]
        teacher, student = (
            ops.pad(x, padding, "constant", LAST)[:, None, :items] for x in sides
        )
        reached = ops.zeros_like(teacher[:, :, 0])
        for done in range(items - 1):
            # (B, sets, items): the next item, once `done` of them are ranked.
            ranked = ops.cast(_sets(items, done), teacher.dtype)
            log_p, log_q = (
                ops.log_softmax(ops.where(ranked > 0, LAST, x), axis=-1)
                for x in (teacher, student)
            )
            p = ops.where(ranked > 0, 0.0, ops.exp(log_p))
            gaps = ops.sum(p * (log_p - log_q), axis=-1)
            total = total + ops.sum(ops.exp(reached) * gaps, axis=-1)
            steps = ops.reshape(reached[..., None] + log_p, (ops.shape(log_p)[0], -1))
            reached = ops.logsumexp(
                ops.take(steps, _paths(items, done), axis=1), axis=-1
            )
        return total


def _sets(items: int, size: int) -> np.ndarray:
    """Return each set of a size as ones in a row, `(sets, items)`."""
    sets = itertools.combinations(range(items), size)
    return np.array([np.isin(range(items), members) for members in sets], "float32")


def _paths(items: int, size: int) -> np.ndarray:
    """Return how each larger set is reached: indices into the flat `(sets, items)`."""
    index = {s: i for i, s in enumerate(itertools.combinations(range(items), size))}

    def path(larger, last):
        return index[tuple(x for x in larger if x != last)] * items + last

    sets = itertools.combinations(range(items), size + 1)
    return np.array([[path(larger, last) for last in larger] for larger in sets])
