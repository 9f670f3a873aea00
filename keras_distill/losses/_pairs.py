"""Distances and inner products between all pairs of samples."""

from keras import ops

from keras_distill.losses._scaling import peak


def flatten(features):
    """Flatten each sample's features to one vector, `(B, D)`."""
    if len(features.shape) == 2:
        return features
    return ops.reshape(features, (ops.shape(features)[0], -1))


def normalize(vectors):
    """Scale vectors, `(..., D)`, to length 1; a vector of zeros stays zero."""
    vectors = vectors / peak(vectors, axis=-1)
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors / ops.sqrt(ops.where(squares > 0, squares, 1.0))


def inner_products(points, others):
    """Return the inner products of `(B, D)` with `(N, D)`, `(B, N)`."""
    return ops.matmul(points, ops.transpose(others))


def squared_distances(points, others):
    """Return squared Euclidean distances, `(B, N)`, exactly 0 between equal points.

    In float32, `|a|^2 + |b|^2 - 2ab` below 1e-6 of `|a|^2 + |b|^2` is rounding error;
    such pairs count as equal and have no gradient. Centering keeps the error small.
    """
    center = ops.stop_gradient(ops.mean(others, axis=0, keepdims=True))
    points, others = points - center, others - center
    lengths = ops.sum(ops.square(points), axis=-1, keepdims=True)
    other_lengths = ops.transpose(ops.sum(ops.square(others), axis=-1, keepdims=True))
    sums = lengths + other_lengths
    squares = sums - 2.0 * inner_products(points, others)
    return ops.where(squares > 1e-6 * sums, squares, 0.0)


def distances(points, others):
    """Return Euclidean distances, `(B, N)`; equal points have no gradient."""
    squares = squared_distances(points, others)
    apart = squares > 0
    return ops.where(apart, ops.sqrt(ops.where(apart, squares, 1.0)), 0.0)


def huber(error):
    """Compute the Huber loss with delta 1: `error^2 / 2`, linear beyond 1."""
    size = ops.abs(error)
    return ops.where(size < 1.0, 0.5 * ops.square(error), size - 0.5)
