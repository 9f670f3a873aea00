"""Angles between samples."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._pairs import everyone, huber, vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class AngleRelation(DistillationLoss):
    """Huber loss of the angles that three samples form.

    A relation of third order: it says more than distances do, and is free of scale:

        value_j = mean_ik huber(cos_s(i, j, k) - cos_t(i, j, k)),
        cos(i, j, k) = <(f_i - f_j) / |f_i - f_j|, (f_k - f_j) / |f_k - f_j|>

    over all i and k of the batch, the vertex j being the sample. Its mean over j is
    that of the authors' code. The vertices are taken one after another, and once more
    for the gradient, so that memory is that of B^2 numbers and not of B^3. It has no
    second derivative. Under replicas the batch is the global one. No adapter: features
    of any shape compare.

    Recommended weight: 50 (the authors').

    Args:
        name, reduction, dtype: as in `DistillationLoss`.

    Example:
        >>> kd.Term(kd.losses.AngleRelation(), student="pool", teacher="pool")

    Source:
        Park et al. 2019, Relational knowledge distillation (RKD-A).
    """

    match = Match.NOTHING
    recommended_weight = 50.0

    def call(self, teacher, student):
        """Give `(B,)` for features of any shape."""
        known, own = _unit_peak(vectors(teacher)), _unit_peak(vectors(student))
        all_known = everyone(known)

        @ops.custom_gradient
        def losses(own, others):
            def vertex(pair):
                gap = _gap(pair[0], others, pair[1], all_known)[0]
                return ops.mean(huber(gap))

            def gradient(*args, upstream=None):
                upstream = args[0] if upstream is None else upstream
                return _gradient(upstream, own, others, known, all_known)

            return ops.map(vertex, (own, known)), gradient

        return losses(own, everyone(own))


def _unit_peak(features):
    """Scale the whole batch to a largest entry of 1, which changes no angle."""
    peak = ops.stop_gradient(ops.max(ops.abs(everyone(features))))
    return features / ops.where(peak > 0, peak, 1.0)


def _edges(vertex, others):
    """Give the unit vectors from a vertex, `(N, D)`, and their lengths, `(N, 1)`."""
    edges = others - vertex
    squares = ops.sum(ops.square(edges), axis=-1, keepdims=True)
    lengths = ops.sqrt(ops.where(squares > 0, squares, 1.0))
    return edges / lengths, lengths


def _gap(vertex, others, known_vertex, known_others):
    """Give the differences of cosines at a vertex, `(N, N)`, the edges and lengths."""
    edges, lengths = _edges(vertex, others)
    known_edges, _ = _edges(known_vertex, known_others)
    gap = ops.matmul(edges, ops.transpose(edges))
    gap -= ops.matmul(known_edges, ops.transpose(known_edges))
    return gap, edges, lengths


def _gradient(upstream, own, others, known, all_known):
    """Give the gradients by the own vectors, `(B, D)`, and by all, `(N, D)`."""
    count = ops.cast(ops.shape(others)[0], own.dtype)

    def step(j, sums):
        own_sum, others_sum = sums
        vertex, known_vertex = (ops.take(x, j, axis=0) for x in (own, known))
        gap, edges, lengths = _gap(vertex, others, known_vertex, all_known)
        # d huber = clip(gap); each cosine is met twice, as (i, k) and (k, i).
        slopes = ops.matmul(ops.clip(gap, -1.0, 1.0), edges)
        slopes *= 2.0 * ops.take(upstream, j) / (count * count)
        along = ops.sum(slopes * edges, axis=-1, keepdims=True)
        slopes = (slopes - along * edges) / lengths
        row = -ops.sum(slopes, axis=0, keepdims=True)
        return ops.slice_update(own_sum, (j, 0), row), others_sum + slopes

    start = ops.zeros_like(own), ops.zeros_like(others)
    return ops.fori_loop(0, ops.shape(own)[0], step, start)
