"""Soft targets: the teacher's softened distribution over the classes."""

from __future__ import annotations

import keras
from keras import ops

from keras_distill.chunks import Chunks, buffer, share_of
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
    """Give each token's divergence times T^2, `(...)`, holding but a chunk of them.

    The gradient's chunks are computed from the logits again. It has no second
    derivative.

    Args:
        teacher: logits, `(..., V)`.
        student: logits, `(..., V)`.
        temperature: T, in the type to compute in.
    """
    shape = ops.shape(student)
    width = shape[-1]
    teacher = ops.reshape(teacher, (-1, width))
    tokens = ops.shape(teacher)[0]
    chunks = Chunks(tokens, share_of(tokens, SHARE, max(1, LOGITS // width)))
    dtype = temperature.dtype

    def softened(chunk, logits):
        logits = ops.reshape(logits, (-1, width))
        return ops.cast(chunk.take(logits), dtype) / temperature

    @ops.custom_gradient
    def divergences(student):
        def value(chunk, found):
            sides = (softened(chunk, logits) for logits in (teacher, student))
            return chunk.put(found, ops.square(temperature) * divergence(*sides))

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            upstream = temperature * ops.reshape(upstream, (-1, 1))

            def slope(chunk, found):
                sides = (softened(chunk, logits) for logits in (teacher, student))
                slopes = chunk.take(upstream) * excess(*sides)
                return chunk.put(found, ops.cast(slopes, student.dtype))

            found = chunks.walk(slope, buffer((tokens, width), student.dtype))
            return ops.reshape(found, shape)

        found = chunks.walk(value, buffer((tokens,), dtype))
        return ops.reshape(found, shape[:-1]), gradient

    return divergences(student)


def divergence(teacher, student):
    """Give `sum_k p_k (log p_k - log q_k)` of logits at T = 1, `(N,)`."""
    log_p = ops.log_softmax(teacher, axis=-1)
    log_q = ops.log_softmax(student, axis=-1)
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def excess(teacher, student):
    """Give `q - p`, the divergence's gradient by the student's logits, `(N, V)`."""
    return ops.softmax(student, axis=-1) - ops.softmax(teacher, axis=-1)
