"""Singular flow: how the main directions of a layer's channels change to a later layer."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_integers
from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import by_location, peak
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class SingularFlow(DistillationLoss):
    r"""Squared distance of the correlations between two layers' singular vectors.

    A layer, a matrix of locations by channels, is reduced to its first right singular
    vectors; what is compared is how those of an earlier layer correlate with those of a
    later one. A term takes two layers a side:

    .. math::

        \ell = \sum_{i,j,k} (R_{s,ijk} - R_{t,ijk})^2,
            \quad R_{ijk} = \exp \left( -(v_{ik} - w_{jk})^2 / 8 \right)

    with v and w the k-th vectors of both layers, times the teacher's singular values,
    which are scaled to length 1. Each of the teacher's vectors is paired with the one of
    the student's first `count + 3` that is most aligned with it, the sign flipped to
    agree. This follows RepDistiller, except for the signs of the teacher's vectors,
    which a decomposition leaves open: here the entries of a vector have a positive sum.
    Where channels differ, an adapter projects the student's to the teacher's.

    Recommended weight: 1.0 (RepDistiller's).

    Args:
        count: singular vectors of a layer, 1 or more. Default 1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `count` is below 1, or a tap is a vector, which has no locations.

    Example:
        >>> pair = ("stack1", "stack2")
        >>> kd.Term(kd.losses.SingularFlow(), student=pair, teacher=pair)

    Source:
        Lee, Kim, Song 2018, Self-supervised knowledge distillation using singular value
        decomposition (KDSVD).
    """

    match = Match.CHANNELS
    taps = 2
    needs = ("mask", "teacher_mask")

    def __init__(self, *, count: int = 1, **kwargs):
        super().__init__(**kwargs)
        check_integers(1, count=count)
        self.count = count

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for two maps `(B, H, W, C)` or sequences `(B, L, D)` a side."""
        student_pair, teacher_pair = [], []
        for student_layer, teacher_layer in zip(student, teacher, strict=True):
            vectors, values = _directions(teacher_layer, self.count, teacher_mask)
            vectors = vectors * ops.sign(ops.sum(vectors, axis=1, keepdims=True))
            teacher_pair.append(vectors * values[:, None, :])
            candidates, _ = _directions(student_layer, self.count + 3, mask)
            student_pair.append(_aligned(candidates, vectors) * values[:, None, :])
        gap = _correlation(*student_pair) - _correlation(*teacher_pair)
        return ops.sum(ops.square(gap), axis=(1, 2, 3))


def _directions(features, count, mask):
    """Return the first right singular vectors, `(B, C, k)`, and their values, `(B, k)`."""
    flat = by_location(features, "SingularFlow", mask)
    flat = flat / peak(flat, axis=(1, 2))
    count = min(count, *(size for size in flat.shape[1:] if size is not None))
    squares, vectors = _eigen(ops.matmul(ops.transpose(flat, (0, 2, 1)), flat))
    values = ops.sqrt(ops.maximum(ops.flip(squares, -1)[:, :count], 1e-12))
    lengths = ops.sqrt(ops.sum(ops.square(values), axis=-1, keepdims=True))
    return ops.flip(vectors, -1)[..., :count], values / lengths


def _eigen(gram):
    """Return the eigenvalues, `(B, C)`, ascending, and eigenvectors, `(B, C, C)`.

    Backends differ on the gradient of vectors whose values are equal, where it has no
    limit; it is left out here. To first order, with all else constant:

        dw_j = <v_j, dA v_j>;   dv_j = sum_i v_i <v_i, dA v_j> / (w_j - w_i)
    """
    # No backend decomposes in half precision.
    wide = keras.backend.result_type(gram.dtype, "float32")
    detached = ops.cast(ops.stop_gradient(gram), wide)
    values, vectors = (ops.cast(x, gram.dtype) for x in ops.eigh(detached))
    change = ops.matmul(ops.transpose(vectors, (0, 2, 1)), ops.matmul(gram, vectors))
    # Zero, with the gradient of <v_i, dA v_j>.
    change = change - ops.stop_gradient(change)
    gaps = values[:, None, :] - values[:, :, None]
    # Closer values differ by rounding errors alone in float32.
    apart = ops.abs(gaps) > 1e-6 * values[:, -1:, None]
    turns = ops.where(apart, change / ops.where(apart, gaps, 1.0), 0.0)
    values = values + ops.diagonal(change, axis1=1, axis2=2)
    return values, vectors + ops.matmul(vectors, turns)


def _aligned(candidates, vectors):
    """Return the candidate most aligned with each vector, its sign flipped to agree."""
    cosines = ops.matmul(ops.transpose(candidates, (0, 2, 1)), vectors)
    best = ops.argmax(ops.abs(cosines), axis=1)
    chosen = ops.one_hot(best, cosines.shape[1], axis=1, dtype=cosines.dtype)
    return ops.matmul(candidates, ops.stop_gradient(chosen * ops.sign(cosines)))


def _correlation(first, second):
    """Return `(B, C, C', k)`."""
    gap = first[:, :, None, :] - second[:, None, :, :]
    return ops.exp(-ops.square(gap) / 8.0)
