"""Samples in pairs: what relation losses compare, over the global batch."""

from __future__ import annotations

from keras import ops

from keras_distill import strategies


def vectors(features):
    """Lay each sample's features out as one vector, `(B, D)`."""
    if len(features.shape) == 2:
        return features
    return ops.reshape(features, (ops.shape(features)[0], -1))


def everyone(own):
    """Give the vectors of the global batch, `(N, D)`, N = B with one replica."""
    return strategies.gather(own)


def normalised(own):
    """Scale vectors `(B, D)` to length 1; a vector of zeros stays as it is."""
    # Dividing by the largest entry first keeps squares from overflowing.
    peak = ops.max(ops.abs(own), axis=-1, keepdims=True)
    own = own / ops.stop_gradient(ops.where(peak > 0, peak, 1.0))
    squares = ops.sum(ops.square(own), axis=-1, keepdims=True)
    return own / ops.sqrt(ops.where(squares > 0, squares, 1.0))


def products(own, others):
    """Give inner products, `(B, N)`."""
    return ops.matmul(own, ops.transpose(others))


def squared_distances(own, others):
    """Give squared Euclidean distances, `(B, N)`, exactly 0 where points are equal.

    In float32 `|a|^2 + |b|^2 - 2ab` is rounding alone below 1e-6 of `|a|^2 + |b|^2`;
    such pairs count as equal, with no gradient. Centring keeps that small.
    """
    centre = ops.stop_gradient(ops.mean(others, axis=0, keepdims=True))
    own, others = own - centre, others - centre
    lengths = ops.sum(ops.square(own), axis=-1, keepdims=True)
    other_lengths = ops.transpose(ops.sum(ops.square(others), axis=-1, keepdims=True))
    sums = lengths + other_lengths
    squares = sums - 2.0 * products(own, others)
    return ops.where(squares > 1e-6 * sums, squares, 0.0)


def distances(own, others):
    """Give Euclidean distances, `(B, N)`; equal points have no gradient."""
    squares = squared_distances(own, others)
    apart = squares > 0
    return ops.where(apart, ops.sqrt(ops.where(apart, squares, 1.0)), 0.0)


def huber(gap):
    """Give the Huber loss of delta 1: half the square, linear from 1 on."""
    size = ops.abs(gap)
    return ops.where(size < 1.0, 0.5 * ops.square(gap), size - 0.5)
