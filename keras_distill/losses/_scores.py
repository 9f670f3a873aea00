"""Scores that rank the other samples of a batch by nearness."""

from keras import ops

from keras_distill import strategies
from keras_distill.losses._pairs import distances, flatten, normalize

# Below any score of two vectors of length 1, and finite in float16.
LAST = -3e4


def scores(features, scale, power):
    """Score every sample of the global batch for each sample, `(B, N)`, itself `LAST`.

        S(i, j) = -scale * |f_i - f_j|^power

    Args:
        features: `(B, ...)`; each sample is scaled to length 1.
        scale: alpha.
        power: beta.
    """
    vectors = normalize(flatten(features))
    others = strategies.gather(vectors)
    values = -scale * ops.power(distances(vectors, others), power)
    rows = strategies.local_rows(ops.shape(vectors)[0])
    itself = rows[:, None] == ops.arange(ops.shape(others)[0])[None]
    return ops.where(itself, LAST, values)


def sort_by_teacher(teacher, values, items=None):
    """Sort scores by the teacher's, highest first, without the sample itself.

    Args:
        teacher: the teacher's scores, `(B, N)`, the sample itself `LAST`.
        values: the scores to sort, `(B, N)`.
        items: the maximum number to keep. Default: all.
    """
    order = ops.argsort(-ops.stop_gradient(teacher), axis=-1)[:, :-1]
    return ops.take_along_axis(values, order[:, :items], axis=-1)
