"""Margin losses on triplets of samples, one anchor at a time."""

from collections.abc import Callable

from keras import ops

from keras_distill._backend.gradients import custom_gradient
from keras_distill.losses._vectors import widened


def triplet_margin(distances, rows, is_nearer: Callable, margin: float):
    """Return each anchor's mean margin loss over its ordered pairs, `(B,)`.

        mean_{(j, k)} max(0, d_ij - d_ik + margin)

    over the distances from the anchors to all samples, `(B, N)`. From an anchor's row of
    `rows`, `(B, ...)`, `is_nearer` returns a matrix `(N, N)`, true where sample j should
    be nearer than sample k. Anchors are processed one after another, value and gradient
    together, so that memory is O(B^2) instead of O(B^3). It has no second derivative.
    """

    @custom_gradient
    def losses(distances):
        values, gradients = ops.map(
            lambda anchor: _anchor(is_nearer(anchor[0]), anchor[1], margin),
            (rows, widened(distances)),
        )
        values, gradients = (ops.cast(x, distances.dtype) for x in (values, gradients))
        return values, lambda upstream: upstream[:, None] * gradients

    return losses(distances)


def _anchor(nearer, distances, margin):
    """Return an anchor's value and its gradient w.r.t. the distances, `(N,)`."""
    active = ops.logical_and(nearer, distances[:, None] + margin > distances[None, :])
    active = ops.cast(active, distances.dtype)
    firsts, seconds = ops.sum(active, axis=1), ops.sum(active, axis=0)
    count = ops.maximum(ops.sum(ops.cast(nearer, distances.dtype)), 1.0)
    gradients = (firsts - seconds) / count
    # The sum of d_j - d_k + margin over the active pairs, by rows and columns.
    return ops.sum(distances * gradients) + margin * ops.sum(firsts) / count, gradients
