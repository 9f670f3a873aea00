"""Knowledge review: each of the teacher's stages, learned by the student's deeper ones."""

import keras
from keras import ops

from keras_distill import adapters
from keras_distill._backend.number_checks import check_integers
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class Review(DistillationLoss):
    r"""Squared distances of fused stages, whole and averaged over coarser grids.

    The student's stages are fused from the deepest up, so that deeper stages learn the
    teacher's early features too, and compared stage by stage:

    .. math::

        \ell = \sum_i \frac{\sum_l w_l \, \mathrm{mean}
            \left( \mathrm{pool}_l(\mathrm{out}_i) - \mathrm{pool}_l(F_{t,i}) \right)^2}
            {\sum_l w_l}

    The grids are the map itself and those of 4x4, 2x2 and 1x1 that are smaller than the
    map, with weights 1, 1/2, 1/4, 1/8. The adapter, `kd.adapters.ReviewFusion`, takes
    all stages. List the taps from early to deep.

    Recommended weight: 1.0; the source raises it from 0 over the first 20 epochs. Means are
    over the numbers of each grid, as in the source, so that a weight depends on the size
    of the features but on that of no map; `kd.suggest_weights` finds one for your models.

    Args:
        levels: number of stages to compare, 2 or more.
        width: channels of the fusion. Default 64.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: there are fewer than two stages, or a tap is not a map.

    Example:
        >>> stages = "stack1", "stack2", "stack3"
        >>> kd.Term(kd.losses.Review(3), student=stages, teacher=stages)

    Source:
        Chen et al. 2021, Distilling knowledge via knowledge review (ReviewKD).
    """

    def __init__(self, levels: int, *, width: int = 64, **kwargs):
        super().__init__(**kwargs)
        check_integers(1, levels=levels, width=width)
        if levels < 2:
            raise ValueError(
                f"levels, the number of stages, must be 2 or more; got {levels}. For one "
                "layer use kd.losses.Hint."
            )
        self.taps = self.levels = levels
        self.width = width

    def joint_adapter(self, student, teacher):
        """Return the fusion of all stages."""
        if any(len(shape) != 4 for shape in (*student, *teacher)):
            raise ValueError(
                f"Review fuses maps (B, H, W, C); got {student} and {teacher}."
            )
        if any(None in shape[1:] for shape in (*student, *teacher)):
            raise ValueError(
                "Review fuses maps of known sizes and channels; got "
                f"{student} and {teacher}. Fix the input size."
            )
        return adapters.ReviewFusion(teacher, width=self.width, name="fusion")

    def call(self, teacher, student):
        """Return `(B,)` for a tuple of maps a side."""
        stages = zip(teacher, student, strict=True)
        return sum(_distance(*stage, self.dtype) for stage in stages)


def _distance(teacher, student, dtype):
    """Return the weighted distances of one stage on all its grids, `(B,)`."""
    size = tuple(student.shape[1:3])
    total, weights, weight = 0.0, 0.0, 1.0
    for grid in (size, *((g, g) for g in (4, 2, 1) if g < min(size))):
        pool = adapters.AveragePool(grid, dtype=dtype)
        gap = ops.square(pool(student) - pool(teacher))
        total += weight * ops.mean(gap, axis=(1, 2, 3))
        weights += weight
        weight /= 2.0
    return total / weights
