"""Flow matrices: how features change from one layer to a later one."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import by_location
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class FlowMatrix(DistillationLoss):
    r"""Squared distance of the flows between two layers, the FSP matrices.

    The flow of the solution procedure: which features of an earlier layer occur with
    which of a later one, averaged over the image. A term takes two layers a side:

    .. math::

        \ell = \mathrm{mean}_{m,n} (G_s - G_t)^2,
            \quad G = \frac{F_1^\top F_2}{H W}

    The paper sums over the matrix; here the mean is taken, as in the common code. The
    larger of a model's two maps is max-pooled to the size of the smaller. Where channels
    differ, an adapter projects each of the student's layers to the teacher's;
    resolutions may differ between the models. In sequences the mean is over the L
    positions, without those that are masked.

    Recommended weight: 50 for each pair (as for the same mean in RepDistiller). A weight w
    of the paper's sum over the m n numbers of the matrix is `m * n * w` here, whatever the
    resolution; `kd.suggest_weights` finds one for your models.

    Raises:
        ValueError: the layers of a pair have no common resolution, or are vectors.

    Example:
        >>> pair = ("stack1", "stack2")
        >>> kd.Term(kd.losses.FlowMatrix(), student=pair, teacher=pair)

    Source:
        Yim, Joo, Bae, Kim 2017, A gift from knowledge distillation.
    """

    match = Match.CHANNELS
    taps = 2
    recommended_weight = 50.0
    needs = ("mask", "teacher_mask")

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for two maps `(B, H, W, C)` or two sequences a side."""
        gap = _flow(*student, mask) - _flow(*teacher, teacher_mask)
        return ops.mean(ops.square(gap), axis=(1, 2))


def _flow(first, second, mask):
    """Return the flow matrix, `(B, m, n)`."""
    if len(first.shape) != len(second.shape) or len(first.shape) < 3:
        raise ValueError(
            "FlowMatrix needs two maps (B, H, W, C) or two sequences (B, L, D); got "
            f"the shapes {tuple(first.shape)} and {tuple(second.shape)}."
        )
    if first.shape[1:-1] != second.shape[1:-1]:
        if mask is not None:
            raise ValueError(
                "FlowMatrix can't pool masked sequences; got lengths "
                f"{first.shape[1]} and {second.shape[1]}. Tap two layers of one length."
            )
        first, second = _pool_larger(first, second)
    first, second = (by_location(x, "FlowMatrix", mask) for x in (first, second))
    # Divide before the product, so that large activations do not overflow.
    first = first / _positions(first, mask)
    return ops.matmul(ops.swapaxes(first, 1, 2), second)


def _positions(features, mask):
    """Return the number of positions, without masked ones, by sample if there are."""
    if mask is None:
        return ops.cast(ops.shape(features)[1], features.dtype)
    mask = ops.reshape(ops.cast(mask, features.dtype), (ops.shape(mask)[0], -1))
    valid = ops.sum(mask, axis=1)
    return ops.maximum(valid, 1.0)[:, None, None]


def _pool_larger(first, second):
    """Max-pool each map to the smaller size of the two."""
    first_size, second_size = first.shape[1:-1], second.shape[1:-1]
    if None in first_size or None in second_size:
        raise ValueError(
            "FlowMatrix pools the larger map to the size of the smaller, so both sizes "
            f"must be known; got {tuple(first.shape)} and {tuple(second.shape)}. Fix the "
            "input size, or tap two layers of one resolution."
        )
    target = tuple(min(pair) for pair in zip(first_size, second_size, strict=True))
    return _max_pool(first, target), _max_pool(second, target)


def _max_pool(features, target):
    sizes = tuple(features.shape[1:-1])
    if sizes == target:
        return features
    window = tuple(-(-size // to) for size, to in zip(sizes, target, strict=True))
    pooled = tuple(-(-size // step) for size, step in zip(sizes, window, strict=True))
    if pooled != target:
        raise ValueError(
            f"FlowMatrix can't max-pool a map of {sizes} to {target}: no window divides "
            "it. Tap two layers of one resolution, or one a multiple of the other."
        )
    return ops.max_pool(features, window, window, "same", "channels_last")
