"""Soft targets: the teacher's softened distribution over the classes."""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_distill._backend.chunks import (
    Chunks,
    chunk_size,
    empty_buffer,
    multiplies_in_place,
)
from keras_distill._backend.gradients import custom_gradient
from keras_distill._backend.products import product
from keras_distill.losses import _close
from keras_distill.losses._entropy import entropy_terms
from keras_distill.losses.divergence import Divergence
from keras_distill.losses.temperature import HIGHEST, is_high, times_squared

# With this many classes or more, the tokens of a sequence are compared in chunks: a
# 64th of the tokens, or as many as have this number of logits.
VOCABULARY, COUNT, LOGITS = 256, 64, 2**19


@keras.saving.register_keras_serializable(package="keras_distill")
class SoftTarget(Divergence):
    r"""Divergence of the student's softened prediction from the teacher's.

    The relative probabilities of wrong classes show the student how the teacher
    generalizes; the temperature makes them count. The factor T^2 keeps the size of the
    gradient, so that temperature and weight can be chosen independently:

    .. math::

        \ell &= T^2 \sum_k p_k (\log p_k - \log q_k)

        p &= \mathrm{softmax}(z_t / T), \quad q = \mathrm{softmax}(z_s / T)

    computed in log space. Its gradient equals that of the cross-entropy with soft
    targets; for T -> infinity it is `(z_s - z_t) / K` on centered logits. Sequences
    `(B, L, V)` have one value per token: with a mask it is word-level sequence
    distillation.

    With a vocabulary of 256 or more, tokens are compared in chunks, and the step holds
    one more tensor of the size of the logits: the gradient. Such sequences have no
    second derivative. `VocabularySoftTarget` avoids the logits as well.

    Recommended weight: 1.0 (Hinton: high, alongside a low weight on the labels, as 0.9 and
    0.1).

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        target: a `kd.targets.Target` that is applied to the teacher's prediction.
            Default: the prediction itself.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: `target` is not a `kd.targets.Target`.
        ValueError: `temperature` is not above 0, or above 1e8; above 1000 with a target,
            above 200 in float16.

    Example:
        >>> kd.losses.SoftTarget(temperature=4.0)(teacher_logits, student_logits)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network; on
        tokens: Kim, Rush 2016, Sequence-level knowledge distillation.
    """

    masked_scores = ("log_scores",)
    highest_temperature = HIGHEST

    def call(self, teacher, student, *, temperature, **context):
        """Return `(B,)` for logits `(B, K)`, `(B, L)` for `(B, L, V)`."""
        if not self._in_chunks(student):
            return super().call(teacher, student, temperature=temperature, **context)
        temperature, high = ops.cast(temperature, self.dtype), is_high(self.temperature)
        return by_token(teacher, student, temperature, high)

    def between(self, log_p, log_q):
        """Return `sum_k p_k (log p_k - log q_k)`."""
        return ops.sum(entropy_terms(log_p, log_q), axis=-1)

    def between_close(self, log_p, log_q):
        """Return the divergence where p and q are close, and where they are."""
        return _close.divergence(log_p, log_q)

    def _in_chunks(self, logits) -> bool:
        sequences = self.target is None and len(logits.shape) > 2
        return sequences and (logits.shape[-1] or 0) >= VOCABULARY

    def _cast(self, tensor):
        tensor = ops.convert_to_tensor(tensor)
        if self._in_chunks(tensor) and keras.backend.is_float_dtype(tensor.dtype):
            # Each chunk is cast on its own.
            return tensor
        return super()._cast(tensor)


def by_token(teacher, student, temperature, high: bool = False):
    """Return each token's divergence times T^2, `(...)`, and hold only the gradient.

    It is computed in the dtype of the temperature. In TensorFlow graphs the gradient is
    computed with the value and scaled in place. Elsewhere its chunks are recomputed from
    the logits: scaling would hold two tensors of its size, and in a narrower dtype small
    entries would be lost before scaling. It has no second derivative. `high` is whether
    the temperature is, or may become so.
    """
    shape = ops.shape(student)
    width = shape[-1]
    teacher = ops.reshape(teacher, (-1, width))
    tokens = ops.shape(teacher)[0]
    chunks = Chunks(tokens, chunk_size(tokens, COUNT, max(1, LOGITS // width)))
    dtype = temperature.dtype
    held = multiplies_in_place() and student.dtype == dtype

    def softened(chunk, student):
        rows = (chunk.take(x) for x in (teacher, ops.reshape(student, (-1, width))))
        return [ops.cast(x, dtype) * (1.0 / temperature) for x in rows]

    def recomputed(student, upstream):
        def step(chunk, gradients):
            rows = chunk.take(upstream) * difference(*softened(chunk, student), high)
            return chunk.put(gradients, ops.cast(rows, student.dtype))

        return chunks.walk(step, empty_buffer((tokens, width), student.dtype))

    @custom_gradient
    def divergences(student):
        def step(chunk, buffers):
            sides = softened(chunk, student)
            p, q = map(prediction, sides)
            values, rows = divergence(p, q), q.p - p.p
            if high:
                values = _close.where_close(*_close.divergence(*sides), values)
                rows = difference(*sides, high)
            values = chunk.put(buffers[0], times_squared(values, temperature))
            return values, *(chunk.put(x, rows) for x in buffers[1:])

        def gradient(upstream):
            upstream = temperature * ops.reshape(upstream, (-1, 1))
            rows = buffers[1] * upstream if held else recomputed(student, upstream)
            return ops.reshape(rows, shape)

        buffers = [empty_buffer((tokens,), dtype)]
        buffers += [empty_buffer((tokens, width), dtype)] if held else []
        buffers = chunks.walk(step, tuple(buffers))
        return ops.reshape(buffers[0], shape[:-1]), gradient

    return divergences(student)


def difference(teacher, student, high: bool):
    """Return `q - p` of softened logits, `(..., K)`; `high` as in `by_token`."""
    if high:
        return _close.difference(teacher, student)
    p, q = (ops.softmax(x, axis=-1) for x in (teacher, student))
    return q - p


class Prediction(NamedTuple):
    """Rows of p at T = 1, and the parts of log p: `z - max z`, and `log max p`."""

    p: Any
    below: Any
    most: Any


def divergence(teacher: Prediction, student: Prediction):
    """Return `sum_k p_k (log p_k - log q_k)`, `(N,)`."""
    gap = ops.sum(product(teacher.p, teacher.below - student.below), axis=-1)
    return gap + teacher.most - student.most


def prediction(logits) -> Prediction:
    """Return the prediction of logits `(N, V)`, with only one logarithm per row."""
    p = ops.softmax(logits, axis=-1)
    below = logits - ops.max(logits, axis=-1, keepdims=True)
    return Prediction(p, below, ops.log(ops.max(p, axis=-1)))
