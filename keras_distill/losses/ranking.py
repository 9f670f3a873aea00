"""The teacher's ranking of its top items."""

import keras
import numpy as np
from keras import ops

from keras_distill._backend.number_checks import check_above, check_integers
from keras_distill.adapters.match import Match
from keras_distill.losses._entropy import absent_on_both
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class Ranking(DistillationLoss):
    r"""Log loss of the student on the teacher's top items, weighted by their rank.

    For recommenders, which return a few items at the top. The student's scores are
    treated as logits of independent items, not of one distribution over all:

    .. math::

        \ell &= -\sum_{r=1}^{n} w_r \log \mathrm{sigmoid}(z_s[\mathrm{item}_r])

        w_r &= \frac{\exp(-r / \mathrm{decay})}{\sum_{r'=1}^{n} \exp(-r' / \mathrm{decay})}

    with `item_r` the teacher's r-th item. It is not zero where the student equals the
    teacher: it rewards high scores, whatever the teacher's are.

    Recommended weight: 1.0, alongside a loss on the items that users chose.

    Args:
        items: n, 1 or more. Default 10.
        decay: of the weights with the rank, above 0. Default 10.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `items` or `decay` is out of range; in a distiller, there is one item.

    Example:
        >>> kd.losses.Ranking(items=15)(teacher_scores, student_scores)

    Source:
        Tang, Wang 2018, Ranking distillation, with the weights by position.
    """

    match = Match.CLASSES

    def __init__(self, items: int = 10, *, decay: float = 10.0, **kwargs):
        super().__init__(**kwargs)
        check_integers(1, items=items)
        check_above(0, decay=decay)
        self.items = items
        self.decay = decay

    def call(self, teacher, student):
        """Return `(B,)` for scores `(B, K)`."""
        if teacher.shape[-1] == 1:
            raise ValueError("one item has no ranking; expected scores of two or more.")
        count = min(self.items, teacher.shape[-1])
        best, top = ops.top_k(teacher, count)
        scores = ops.take_along_axis(student, top, axis=-1)
        weights = np.exp(-np.arange(1, count + 1) / self.decay)
        weights = ops.cast(weights / weights.sum(), scores.dtype)
        # An item that is -inf on both sides is none; those that remain weigh all.
        absent = absent_on_both(scores, best)
        rest = ops.sum(ops.where(absent, weights, 0.0), axis=-1)
        values = ops.where(absent, 0.0, ops.log_sigmoid(ops.where(absent, 0.0, scores)))
        return -ops.divide_no_nan(ops.sum(weights * values, axis=-1), 1.0 - rest)
