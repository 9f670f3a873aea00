"""Scores that rank the other samples of a batch by nearness."""

from keras import ops

from keras_distill.losses._vectors import distances, with_itself

# Below any score of two vectors of length 1, and finite in float16.
LAST = -3e4


def sorted_scores(teacher, student, scale, power, items=None):
    """Score the other samples of the global batch for each sample, both `(B, items)`.

        S(i, j) = -scale * |f_i - f_j|^power

    of vectors f of length 1, in the teacher's order, best first.
    """
    sides = [_scores(x, scale, power) for x in (teacher, student)]
    order = ops.argsort(-ops.stop_gradient(sides[0]), axis=-1)[:, :-1]
    return [ops.take_along_axis(x, order[:, :items], axis=-1) for x in sides]


def _scores(vectors, scale, power):
    """Return the scores of all samples, `(B, N)`, that of the sample itself `LAST`."""
    values = -scale * ops.power(distances(vectors), power)
    return ops.where(with_itself(values), LAST, values)
