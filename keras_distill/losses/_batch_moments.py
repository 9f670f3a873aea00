"""Features normalized by the mean and variance of their channels over the batch."""

from keras import ops

from keras_distill import strategies
from keras_distill.losses._masking import expanded, without_masked
from keras_distill.losses._vectors import widened


def batch_normalized(features, mask, epsilon: float):
    """Return features with channels of mean 0 and variance 1, masked steps as zeros.

    Args:
        features: `(B, ..., C)`, of which each location counts as a sample; under
            replicas the batch is the global one.
        mask: of valid steps, or None.
        epsilon: added to the variance.
    """
    dtype, features = features.dtype, widened(features)
    counts = ops.ones_like(features[..., :1])
    if mask is not None:
        counts = counts * expanded(mask, features, features.dtype)
    kept, counts = _rows(without_masked(features, mask)), _rows(counts)
    total = ops.maximum(ops.sum(counts), 1.0)
    mean = ops.sum(kept, axis=0) / total
    variance = ops.sum(ops.square(counts * (kept - mean)), axis=0) / total
    normalized = (features - mean) / ops.sqrt(variance + epsilon)
    return ops.cast(without_masked(normalized, mask), dtype)


def _rows(features):
    """Return the locations of the global batch, `(N, C)`."""
    return strategies.gather(ops.reshape(features, (-1, features.shape[-1])))
