"""How near other samples are, as scores that rank them for each sample."""

from __future__ import annotations

from keras import ops

from keras_distill import strategies
from keras_distill.losses._pairs import distances, everyone, normalised, vectors

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


def in_order_of(teacher, found, items=None):
    """Give scores `found` of the others, or the `items` nearest, in the teacher's order.

    Args:
        teacher: the teacher's scores, `(B, N)`, itself last.
        found: scores, `(B, N)`.
        items: how many at most. Default: all others.
    """
    first = ops.argsort(-ops.stop_gradient(teacher), axis=-1)[:, :-1]
    return ops.take_along_axis(found, first[:, :items], axis=-1)
