"""Samples as vectors: their scaling, distances and inner products."""

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.losses._masking import without_masked


def flatten(features, mask=None):
    """Flatten each sample's features to one vector, `(B, D)`; masked steps are zeros."""
    if len(features.shape) == 2:
        return features
    features = without_masked(features, mask)
    return ops.reshape(features, (ops.shape(features)[0], -1))


def by_location(features, method: str, mask=None):
    """Return a map or a sequence as vectors of its P locations, `(B, P, C)`.

    Masked steps of a sequence are zeros.
    """
    if len(features.shape) < 3:
        raise ValueError(
            f"{method} compares locations, so it needs maps (B, H, W, C) or sequences "
            f"(B, L, D); got {tuple(features.shape)}. Tap an earlier layer, or use Hint."
        )
    features = without_masked(features, mask)
    shape = ops.shape(features)
    return ops.reshape(features, (shape[0], -1, shape[-1]))


def mean_per_token(values):
    """Return means over all axes, `(B,)`, or over channels for sequences, `(B, L)`."""
    axes = -1 if len(values.shape) == 3 else tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes)


def peak(x, axis=None):
    """Return the largest magnitude along axes, kept with size 1, or 1 where all is zero.

    Dividing by it before squares are summed keeps them from overflowing, where a common
    factor does not change the result. No gradient flows through it.
    """
    largest = ops.max(ops.abs(x), axis=axis, keepdims=axis is not None)
    return ops.stop_gradient(ops.where(largest > 0, largest, 1.0))


def widened(x):
    """Return a tensor of half precision in float32, in which its sums are finite."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def relative(features, mask=None):
    """Flatten features to vectors, `(B, D)`, divided by the peak of the global batch.

    Of what does not depend on a common factor, squares then neither overflow nor vanish.
    """
    vectors = flatten(features, mask)
    return vectors / peak(strategies.gather(vectors))


def normalize(vectors):
    """Scale vectors, `(..., D)`, to length 1; a vector of zeros stays zero."""
    vectors = vectors / peak(vectors, axis=-1)
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors / ops.sqrt(ops.where(squares > 0, squares, 1.0))


def unit_vectors(features, mask=None):
    """Flatten each sample's features to one vector of length 1, `(B, D)`.

    Masked steps are zeros.
    """
    return normalize(flatten(features, mask))


def inner_products(vectors):
    """Return the inner products with the vectors of the global batch, `(B, N)`."""
    return ops.matmul(vectors, ops.transpose(strategies.gather(vectors)))


def squared_distances(vectors):
    """Return squared distances to the global batch, `(B, N)`, 0 between equal points."""
    return ops.cast(_squares(vectors), vectors.dtype)


def distances(vectors):
    """Return distances to the global batch, `(B, N)`; equal points have no gradient."""
    squares = _squares(vectors)
    apart = squares > 0
    lengths = ops.where(apart, ops.sqrt(ops.where(apart, squares, 1.0)), 0.0)
    return ops.cast(lengths, vectors.dtype)


def _squares(vectors):
    """Return squared distances in float32, or in float64 if the vectors are.

    There `|a|^2 + |b|^2 - 2ab` below 1e-6 of `|a|^2 + |b|^2` is rounding error; such pairs
    count as equal and have no gradient. Centering keeps the error small.
    """
    vectors = widened(vectors)
    others = strategies.gather(vectors)
    center = ops.stop_gradient(ops.mean(others, axis=0, keepdims=True))
    vectors, others = vectors - center, others - center
    lengths = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    other_lengths = ops.transpose(ops.sum(ops.square(others), axis=-1, keepdims=True))
    sums = lengths + other_lengths
    squares = sums - 2.0 * ops.matmul(vectors, ops.transpose(others))
    return ops.where(squares > 1e-6 * sums, squares, 0.0)


def with_itself(pairs):
    """Return true for the pairs, `(B, N)`, of a sample with itself."""
    count, total = ops.shape(pairs)
    return strategies.local_rows(count)[:, None] == ops.arange(total)[None]


def huber(error):
    """Compute the Huber loss with delta 1: `error^2 / 2`, linear beyond 1."""
    size = ops.abs(error)
    return ops.where(size < 1.0, 0.5 * ops.square(error), size - 0.5)
