"""Scores that rank the other samples of a batch by nearness."""

from keras import ops

from keras_distill.losses._vectors import distances, unit_vectors, with_itself

# Below any score of two vectors of length 1, and finite in float16.
LAST = -3e4


def scores(features, scale, power):
    """Score every sample of the global batch for each sample, `(B, N)`, itself `LAST`.

        S(i, j) = -scale * |f_i - f_j|^power

    with each sample's features f scaled to length 1.
    """
    values = -scale * ops.power(distances(unit_vectors(features)), power)
    return ops.where(with_itself(values), LAST, values)


def sort_by_teacher(teacher, values, items=None):
    """Sort scores, `(B, N)`, by the teacher's, best first, without the sample itself."""
    order = ops.argsort(-ops.stop_gradient(teacher), axis=-1)[:, :-1]
    return ops.take_along_axis(values, order[:, :items], axis=-1)
