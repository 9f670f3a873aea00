"""Soft targets: the teacher's softened distribution over the classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_distill._backend.chunks import (
    Chunks,
    chunk_size,
    empty_buffer,
    multiplies_in_place,
)
from keras_distill.losses.divergence import Divergence

# From so many classes on, the tokens of a sequence are compared chunk by chunk: a 64th
# of them, or as many as give so many logits.
VOCABULARY, SHARE, LOGITS = 256, 64, 2**19


@keras.saving.register_keras_serializable(package="keras_distill")
class SoftTarget(Divergence):
    """Divergence of the student's softened prediction from the teacher's.

    The relative probabilities of wrong classes tell the student how the teacher
    generalises; the temperature makes them count. The factor T^2 keeps the size of the
    gradient, so that temperature and weight can be chosen independently:

        T^2 * sum_k p_k (log p_k - log q_k),   p = softmax(z_t / T), q = softmax(z_s / T)

    computed in log space. Its gradient equals that of the cross-entropy with soft
    targets; for T -> infinity it is `(z_s - z_t) / K` on centred logits. Sequences
    `(B, L, V)` give one value a token: under a mask it is word-level sequence
    distillation.

    Of a vocabulary of 256 and more, tokens are compared in chunks, and the step holds
    one more tensor of the size of the logits: the gradient. Such sequences have no
    second derivative. `VocabularySoftTarget` goes without the logits as well.

    Recommended weight: 1.0 (Hinton: high beside a low weight on the labels, as 0.9 and
    0.1).

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        target: what the teacher's prediction is turned into first. Default: nothing.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: the target is none.
        ValueError: the temperature is not above 0.

    Example:
        >>> kd.losses.SoftTarget(temperature=4.0)(teacher_logits, student_logits)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network; on
        tokens: Kim, Rush 2016, Sequence-level knowledge distillation.
    """

    def call(self, teacher, student, *, temperature, **context):
        """Give `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        if not self._in_chunks(student):
            return super().call(teacher, student, temperature=temperature, **context)
        return by_token(teacher, student, ops.cast(temperature, self.dtype))

    def between(self, log_p, log_q):
        """Give `sum_k p_k (log p_k - log q_k)`."""
        return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)

    def _in_chunks(self, logits) -> bool:
        sequences = self.target is None and len(logits.shape) > 2
        return sequences and (logits.shape[-1] or 0) >= VOCABULARY

    def _cast(self, tensor):
        tensor = ops.convert_to_tensor(tensor)
        if self._in_chunks(tensor) and keras.backend.is_float_dtype(tensor.dtype):
            # A chunk at a time is cast.
            return tensor
        return super()._cast(tensor)


def by_token(teacher, student, temperature):
    """Give each token's divergence times T^2, `(...)`, and hold but the gradient.

    In TensorFlow's graphs it is made with the value, and scaled in place. Elsewhere its
    chunks are made from the logits again: else two of its size were held, and in
    another type than that to compute in it would lose what is small before it is
    scaled. It has no second derivative.

    Args:
        teacher: logits, `(..., V)`.
        student: logits, `(..., V)`.
        temperature: T, in the type to compute in.
    """
    shape = ops.shape(student)
    width = shape[-1]
    teacher = ops.reshape(teacher, (-1, width))
    tokens = ops.shape(teacher)[0]
    chunks = Chunks(tokens, chunk_size(tokens, SHARE, max(1, LOGITS // width)))
    dtype = temperature.dtype
    held = multiplies_in_place() and student.dtype == dtype

    def sides(chunk, student):
        rows = (chunk.take(x) for x in (teacher, ops.reshape(student, (-1, width))))
        return [ops.cast(x, dtype) * (1.0 / temperature) for x in rows]

    def again(student, upstream):
        def step(chunk, found):
            known, seen = (ops.softmax(x, axis=-1) for x in sides(chunk, student))
            slopes = chunk.take(upstream) * (seen - known)
            return chunk.put(found, ops.cast(slopes, student.dtype))

        return chunks.walk(step, empty_buffer((tokens, width), student.dtype))

    @ops.custom_gradient
    def divergences(student):
        def step(chunk, found):
            known, seen = map(prediction, sides(chunk, student))
            values = ops.square(temperature) * divergence(known, seen)
            values = chunk.put(found[0], values)
            return values, *(chunk.put(x, seen.p - known.p) for x in found[1:])

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            upstream = temperature * ops.reshape(upstream, (-1, 1))
            slopes = found[1] * upstream if held else again(student, upstream)
            return ops.reshape(slopes, shape)

        found = [empty_buffer((tokens,), dtype)]
        found += [empty_buffer((tokens, width), dtype)] if held else []
        found = chunks.walk(step, tuple(found))
        return ops.reshape(found[0], shape[:-1]), gradient

    return divergences(student)


class Prediction(NamedTuple):
    """Rows of p at T = 1, and the parts of log p: `z - max z`, and `log max p`."""

    p: Any
    below: Any
    most: Any


def divergence(teacher: Prediction, student: Prediction):
    """Give `sum_k p_k (log p_k - log q_k)`, `(N,)`."""
    gap = ops.sum(teacher.p * (teacher.below - student.below), axis=-1)
    return gap + teacher.most - student.most


def prediction(logits) -> Prediction:
    """Give what logits `(N, V)` predict, with no logarithm but one a row."""
    p = ops.softmax(logits, axis=-1)
    below = logits - ops.max(logits, axis=-1, keepdims=True)
    return Prediction(p, below, ops.log(ops.max(p, axis=-1)))
