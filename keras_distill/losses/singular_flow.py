"""How the main directions of a layer's channels change to a later layer."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class SingularFlow(DistillationLoss):
    """Squared distance of the correlations between two layers' singular vectors.

    A layer, places by channels, is boiled down to its first right singular vectors; how
    those of an earlier layer go with those of a later one is what is compared. A term
    takes two layers a side:

        R_ijk = exp(-(v_ik - w_jk)^2 / 8);   sum_{ijk} (R_s - R_t)^2

    with v and w the k-th vectors of both layers, times the teacher's singular values,
    these scaled to length 1. Each vector of the teacher is met by that of the student's
    first `count + 3` which points most along it, its sign turned to agree. This follows
    RepDistiller, but for the teacher's signs, which a decomposition leaves open: here
    the entries of a vector add up to a positive number. Where channels differ, an
    adapter brings the student's to the teacher's.

    Recommended weight: 1.0 (RepDistiller's).

    Args:
        count: singular vectors of a layer, 1 or more. Default 1.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: count is below 1, or a tap has no places.

    Example:
        >>> pair = ("stack1", "stack2")
        >>> kd.Term(kd.losses.SingularFlow(), student=pair, teacher=pair)

    Source:
        Lee, Kim, Song 2018, Self-supervised knowledge distillation using singular value
        decomposition (KDSVD).
    """

    match = Match.CHANNELS
    taps = 2

    def __init__(self, *, count: int = 1, **kwargs):
        super().__init__(**kwargs)
        if count < 1:
            raise ValueError(f"count is 1 or more singular vectors; got {count}.")
        self.count = count

    def call(self, teacher, student):
        """Give `(B,)` for two maps `(B, H, W, C)` or sequences `(B, L, D)` a side."""
        own, known = [], []
        for seen, taught in zip(student, teacher, strict=True):
            vectors, values = _directions(taught, self.count)
            vectors = vectors * ops.sign(ops.sum(vectors, axis=1, keepdims=True))
            known.append(vectors * values[:, None, :])
            candidates, _ = _directions(seen, self.count + 3)
            own.append(_aligned(candidates, vectors) * values[:, None, :])
        gap = _correlation(*own) - _correlation(*known)
        return ops.sum(ops.square(gap), axis=(1, 2, 3))

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "count": self.count}


def _directions(features, count):
    """Give the first right singular vectors, `(B, C, k)`, and their values, `(B, k)`."""
    if len(features.shape) < 3:
        raise ValueError(
            "SingularFlow compares layers of places by channels: maps (B, H, W, C) or "
            f"sequences (B, L, D); got {tuple(features.shape)}."
        )
    flat = ops.reshape(features, (ops.shape(features)[0], -1, features.shape[-1]))
    # The vectors do not change with the scale; squares of large features overflow.
    peak = ops.max(ops.abs(flat), axis=(1, 2), keepdims=True)
    flat = flat / ops.stop_gradient(ops.where(peak > 0, peak, 1.0))
    count = min(count, *(size for size in flat.shape[1:] if size is not None))
    squares, vectors = _eigen(ops.matmul(ops.transpose(flat, (0, 2, 1)), flat))
    values = ops.sqrt(ops.maximum(ops.flip(squares, -1)[:, :count], 1e-12))
    lengths = ops.sqrt(ops.sum(ops.square(values), axis=-1, keepdims=True))
    return ops.flip(vectors, -1)[..., :count], values / lengths


def _eigen(gram):
    """Give the eigenvalues, `(B, C)`, and eigenvectors, `(B, C, C)`, values rising.

    Backends differ on the slope of vectors whose values meet, where it has no limit; it
    is left out here. To first order, with all else held still:

        dw_j = <v_j, dA v_j>;   dv_j = sum_i v_i <v_i, dA v_j> / (w_j - w_i)
    """
    # Nothing decomposes in half precision.
    wide = keras.backend.result_type(gram.dtype, "float32")
    values, vectors = (
        ops.cast(x, gram.dtype)
        for x in ops.eigh(ops.cast(ops.stop_gradient(gram), wide))
    )
    moved = ops.matmul(ops.transpose(vectors, (0, 2, 1)), ops.matmul(gram, vectors))
    moved = moved - ops.stop_gradient(moved)
    gaps = values[:, None, :] - values[:, :, None]
    # Closer values differ by rounding alone in float32.
    apart = ops.abs(gaps) > 1e-6 * values[:, -1:, None]
    turns = ops.where(apart, moved / ops.where(apart, gaps, 1.0), 0.0)
    values = values + ops.diagonal(moved, axis1=1, axis2=2)
    return values, vectors + ops.matmul(vectors, turns)


def _aligned(candidates, vectors):
    """Give, for each vector, the candidate most along it, its sign turned to agree."""
    cosines = ops.matmul(ops.transpose(candidates, (0, 2, 1)), vectors)
    best = ops.argmax(ops.abs(cosines), axis=1)
    chosen = ops.one_hot(best, cosines.shape[1], axis=1, dtype=cosines.dtype)
    return ops.matmul(candidates, ops.stop_gradient(chosen * ops.sign(cosines)))


def _correlation(first, second):
    """Give `(B, C, C', k)`."""
    gap = first[:, :, None, :] - second[:, None, :, :]
    return ops.exp(-ops.square(gap) / 8.0)
