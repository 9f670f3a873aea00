"""Angles between samples."""

import keras
from keras import ops

from keras_distill import strategies
from keras_distill._backend.gradients import custom_gradient
from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import huber, relative, widened
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class AngleRelation(DistillationLoss):
    r"""Huber loss of the angles that three samples form.

    A third-order relation, which carries more than distances and is invariant to scale:

    .. math::

        \ell_j &= \mathrm{mean}_{i,k} \, \mathrm{huber}(\cos_s(i, j, k) - \cos_t(i, j, k))

        \cos(i, j, k) &= \left\langle
            \frac{f_i - f_j}{\lVert f_i - f_j \rVert},
            \frac{f_k - f_j}{\lVert f_k - f_j \rVert} \right\rangle

    over all i and k of the batch, where the vertex j is the sample. Its mean over j is
    that of the authors' code. Vertices are processed one after another, and once more
    for the gradient, so that memory is O(B^2) instead of O(B^3). It has no second
    derivative. Under replicas the batch is the global one. No adapter is needed:
    features of any shape compare.

    Recommended weight: 50 (the authors'). It is a mean over triples of cosines, for features
    and batches of any size.

    Example:
        >>> kd.Term(kd.losses.AngleRelation(), student="pool", teacher="pool")

    Source:
        Park et al. 2019, Relational knowledge distillation (RKD-A).
    """

    compares_samples = True
    match = Match.NOTHING
    recommended_weight = 50.0
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for features of any shape."""
        # One scale for the whole batch changes no angle.
        dtype = student.dtype
        teacher, student = (
            widened(relative(*side))
            for side in ((teacher, teacher_mask), (student, mask))
        )
        all_teacher = strategies.gather(teacher)

        @custom_gradient
        def losses(student, all_student):
            def at_vertex(pair):
                gap = _gap(pair[0], all_student, pair[1], all_teacher)[0]
                return ops.mean(huber(gap))

            values = ops.map(at_vertex, (student, teacher))
            sides = student, all_student, teacher, all_teacher
            return values, lambda upstream: _gradient(upstream, *sides)

        return ops.cast(losses(student, strategies.gather(student)), dtype)


def _edges(vertex, points):
    """Return the unit vectors from a vertex, `(N, D)`, and their lengths, `(N, 1)`."""
    edges = points - vertex
    squares = ops.sum(ops.square(edges), axis=-1, keepdims=True)
    lengths = ops.sqrt(ops.where(squares > 0, squares, 1.0))
    return edges / lengths, lengths


def _gap(vertex, points, teacher_vertex, teacher_points):
    """Return the differences of cosines at a vertex, `(N, N)`, edges and lengths."""
    edges, lengths = _edges(vertex, points)
    teacher_edges, _ = _edges(teacher_vertex, teacher_points)
    gap = ops.matmul(edges, ops.transpose(edges))
    gap -= ops.matmul(teacher_edges, ops.transpose(teacher_edges))
    return gap, edges, lengths


def _gradient(upstream, student, all_student, teacher, all_teacher):
    """Return the gradients w.r.t. the vertices, `(B, D)`, and all points, `(N, D)`."""
    count = ops.cast(ops.shape(all_student)[0], student.dtype)

    def step(j, sums):
        by_vertices, by_points = sums
        vertex, teacher_vertex = (ops.take(x, j, axis=0) for x in (student, teacher))
        gap, edges, lengths = _gap(vertex, all_student, teacher_vertex, all_teacher)
        # d huber = clip(gap); each cosine occurs twice, as (i, k) and (k, i).
        gradient = ops.matmul(ops.clip(gap, -1.0, 1.0), edges)
        gradient *= 2.0 * ops.take(upstream, j) / (count * count)
        along = ops.sum(gradient * edges, axis=-1, keepdims=True)
        gradient = (gradient - along * edges) / lengths
        row = -ops.sum(gradient, axis=0, keepdims=True)
        return ops.slice_update(by_vertices, (j, 0), row), by_points + gradient

    start = ops.zeros_like(student), ops.zeros_like(all_student)
    return ops.fori_loop(0, ops.shape(student)[0], step, start)
