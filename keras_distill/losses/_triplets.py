"""Margins between two samples' distances to a third, an anchor at a time."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops


def triplet_margin(near, known, order: Callable, margin: float):
    """Give each anchor's mean margin loss on the pairs whose order is known, `(B,)`.

        mean_{(j, k)} max(0, near_ij - near_ik + margin)

    Anchors are taken one after another, value and slope at once, so that memory is that
    of B^2 numbers and not of B^3. It has no second derivative.

    Args:
        near: distances of the anchors to all, `(B, N)`.
        known: what the order of an anchor's pairs follows from, `(B, ...)`.
        order: gives of an anchor's row of `known` a matrix `(N, N)`, true where j
            should be nearer than k.
        margin: between the distances.
    """

    @ops.custom_gradient
    def losses(near):
        values, slopes = ops.map(
            lambda row: _anchor(order(row[0]), row[1], margin), (known, near)
        )

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return upstream[:, None] * slopes

        return values, gradient

    return losses(near)


def _anchor(nearer, near, margin):
    """Give an anchor's value and its slope by the distances `(N,)`."""
    active = ops.logical_and(nearer, near[:, None] + margin > near[None, :])
    active = ops.cast(active, near.dtype)
    firsts, seconds = ops.sum(active, axis=1), ops.sum(active, axis=0)
    count = ops.maximum(ops.sum(ops.cast(nearer, near.dtype)), 1.0)
    slopes = (firsts - seconds) / count
    # The sum of near_j - near_k + margin over the active pairs, by rows and columns.
    return ops.sum(near * slopes) + margin * ops.sum(firsts) / count, slopes
