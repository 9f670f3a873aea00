"""Scaling that keeps squares from overflowing."""

from keras import ops


def peak(x, axis=None):
    """Return the largest magnitude along axes, or 1 where all is zero.

    No gradient flows through it. Dividing by it before squares are summed keeps them
    from overflowing, where a common factor does not change the result.

    Args:
        x: a tensor.
        axis: one axis or several, kept with size 1. Default: all, to a scalar.
    """
    largest = ops.max(ops.abs(x), axis=axis, keepdims=axis is not None)
    return ops.stop_gradient(ops.where(largest > 0, largest, 1.0))
