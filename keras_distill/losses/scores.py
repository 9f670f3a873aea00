"""How near other samples are, as scores that rank them for each sample."""

from __future__ import annotations

from keras import ops

from keras_distill import strategies
from keras_distill.losses.pairs import distances, everyone, normalised, vectors

# Below any score of two vectors of length 1, and finite in float16.
LAST = -3e4


def scores(features, scale, power):
    """Score the others of the batch for each sample, `(B, N)`, itself last.

        S(i, j) = -scale * |f_i - f_j|^power

    Args:
        features: `(B, ...)`, scaled to length 1 a sample.
        scale: alpha.
        power: beta.
    """
    own = normalised(vectors(features))
    others = everyone(own)
    near = -scale * ops.power(distances(own, others), power)
    rows = strategies.own_rows(ops.shape(own)[0])
    itself = rows[:, None] == ops.arange(ops.shape(others)[0])[None]
    return ops.where(itself, LAST, near)


def in_order_of(teacher, found, items):
    """Give scores `found` of the teacher's nearest, `(B, items)`, nearest first."""
    first = ops.argsort(-ops.stop_gradient(teacher), axis=-1)[:, :items]
    return ops.take_along_axis(found, first, axis=-1)


def listed(features, items):
    """Give how many others are ranked: `items`, or all that there are."""
    count = features.shape[0]
    if count is None:
        raise ValueError(
            "Losses on rankings need a batch size that is known; drop the last, smaller "
            "batch, as with kd.data.batches(..., drop_remainder=True)."
        )
    others = count * strategies.replica_count() - 1
    return others if items is None else min(items, others)
