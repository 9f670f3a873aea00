"""Soft targets over a vocabulary, without the logits of all tokens at once."""

from __future__ import annotations

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill._backend.chunks import Chunks, buffer, chunk_size, empty_buffer
from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.schedules import check_positive
from keras_distill.losses.soft_target import divergence, prediction
from keras_distill.taps.heads import Head

# A chunk's share of the tokens and its least size; the kernel's gradient is added up in
# so many parts.
SHARE, LEAST, PARTS = 32, 32, 8


@keras.saving.register_keras_serializable(package="keras_distill")
class VocabularySoftTarget(DistillationLoss):
    """Soft targets, and labels, from the states that go into the last layers.

    Logits `(B, L, V)` of a language model are larger than all else in it. Here both
    nets' last matrix product is done for a chunk of tokens at a time, forwards and
    again backwards, so that some `(chunk, V)` are all that is held of them:

        T^2 * sum_k p_k (log p_k - log q_k) - label_weight * log softmax(z_s)_y
        z = h W + b,   p = softmax(z_t / T),   q = softmax(z_s / T)

    Value and gradients are those of `SoftTarget` on the logits and of the labels'
    cross-entropy. Tap the input of the last layer on both sides, a `Dense` without
    activation or a `ReversibleEmbedding` used in reverse. Compiled without a loss and
    metrics, nothing else asks for the logits, and TensorFlow's and JAX's compiled step
    leave them out; torch computes the layer all the same. A mask and sample weights
    count for both parts. It has no second derivative.

    Recommended weight: 1.0.

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        label_weight: of the labels' cross-entropy, 0 or more. Default 0: no labels.
        chunk: how many tokens at a time. Default: a 32nd of them, 32 or more.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: the temperature is not above 0, a negative weight, a chunk below 1;
            in a distiller, taps of anything else, or other vocabularies.

    Example:
        >>> states = kd.Tap("head", side="input")
        >>> loss = kd.losses.VocabularySoftTarget(2.0, label_weight=0.1)
        >>> kd.Term(loss, student=states, teacher=states)

    Source:
        Kim, Rush 2016, Sequence-level knowledge distillation; in chunks: Wijmans et al.
        2024, Cut your losses in large-vocabulary language models, and Hsu et al. 2024,
        Liger Kernel: efficient Triton kernels for LLM training.
    """

    match = Match.NOTHING
    scheduled = ("temperature",)

    def __init__(
        self,
        temperature: float | LearningRateSchedule = 4.0,
        *,
        label_weight: float = 0.0,
        chunk: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive(temperature, "temperature")
        self.temperature = temperature
        if label_weight < 0:
            raise ValueError(f"label_weight must be 0 or more; got {label_weight}.")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk is a number of tokens, 1 or more; got {chunk}.")
        self.label_weight = label_weight
        self.chunk = chunk
        self.needs = ("teacher_head", "student_head")
        self.needs += ("labels",) if label_weight else ()
        self.labels_are_classes = label_weight > 0

    def call(
        self,
        teacher,
        student,
        *,
        temperature,
        teacher_head,
        student_head,
        labels=None,
    ):
        """Give `(B, L)` for states `(B, L, D)`, `(B,)` for `(B, D)`.

        Args:
            teacher: the states that go into its last layer.
            student: the student's; their D may be another.
            temperature: T.
            teacher_head: the last layer's kernel, `(D, V)`, its bias, `(V,)` or None,
                and whether the kernel is transposed, `(V, D)`.
            student_head: the student's.
            labels: classes, `(B, L)` or `(B, L, 1)`.
        """
        teacher_head, student_head = Head(*teacher_head), Head(*student_head)
        temperature = ops.cast(temperature, self.dtype)
        if labels is not None:
            labels = _flat_labels(labels, student)
        part = _Part(
            _rows(teacher), teacher_head, labels, temperature, self.label_weight
        )
        tokens = ops.shape(part.teacher)[0]
        chunks = Chunks(tokens, self.chunk or chunk_size(tokens, SHARE, LEAST))
        values = _values(part, chunks, _rows(student), student_head)
        return ops.reshape(values, ops.shape(student)[:-1])

    def get_config(self) -> dict:
        """Give the arguments."""
        own = {"label_weight": self.label_weight, "chunk": self.chunk}
        return {**super().get_config(), **own}


class _Part:
    """What a chunk's logits of the student are compared with."""

    def __init__(self, teacher, head, labels, temperature, label_weight):
        self.teacher, self.head, self.labels = teacher, head, labels
        self.temperature, self.label_weight = temperature, label_weight
        self.dtype = temperature.dtype

    def value(self, chunk, student):
        """Give the loss of logits, `(size,)`."""
        sides = self._known(chunk), student / self.temperature
        values = divergence(*map(prediction, sides))
        values = ops.square(self.temperature) * values
        if self.labels is None:
            return values
        true = ops.sum(self._true(chunk, student) * student, axis=-1)
        return values + self.label_weight * (ops.logsumexp(student, axis=-1) - true)

    def slope(self, chunk, student):
        """Give its gradient by the logits, `(size, V)`."""
        slopes = ops.softmax(student / self.temperature, axis=-1)
        slopes = self.temperature * (slopes - ops.softmax(self._known(chunk), axis=-1))
        if self.labels is None:
            return slopes
        label_slopes = ops.softmax(student, axis=-1) - self._true(chunk, student)
        return slopes + self.label_weight * label_slopes

    def _known(self, chunk):
        logits = self.head.logits(chunk.take(self.teacher))
        return ops.cast(logits, self.dtype) / self.temperature

    def _true(self, chunk, student):
        labels = chunk.take(self.labels)
        return ops.one_hot(labels, student.shape[-1], dtype=self.dtype)


def _values(part: _Part, chunks: Chunks, states, head: Head):
    """Give each token's loss, `(N,)`, differentiable by states, kernel and bias."""

    def logits(chunk, head, states):
        return ops.cast(head.logits(chunk.take(states)), part.dtype)

    @ops.custom_gradient
    def values(states, *weights):
        own = Head(*_pair(weights), head.transposed)

        def value(chunk, found):
            return chunk.put(found, part.value(chunk, logits(chunk, own, states)))

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream

            def slope(chunk, found):
                slopes = part.slope(chunk, logits(chunk, own, states))
                slopes = chunk.once(chunk.take(upstream[:, None])) * slopes
                return _add(found, chunk, own, states, slopes)

            given = states, *weights
            found = (buffer(ops.shape(x), part.dtype) for x in given)
            found = chunks.walk(slope, tuple(found))
            return tuple(
                ops.cast(x, like.dtype) for x, like in zip(found, given, strict=True)
            )

        found = chunks.walk(value, empty_buffer((chunks.rows,), part.dtype))
        return found, gradient

    return values(states, *(x for x in head[:2] if x is not None))


def _add(found: tuple, chunk, head: Head, states, slopes) -> tuple:
    """Add a chunk's part to the gradients by states, kernel and bias."""
    by_states, by_kernel, *by_bias = found
    dtype = by_states.dtype
    own = ops.cast(head.states_gradient(slopes), dtype)
    by_states = chunk.add(by_states, own)
    rows, columns = head.kernel_factors(chunk.take(states), slopes)
    parts = Chunks(rows.shape[0], -(-rows.shape[0] // PARTS))

    def step(part, kernel):
        product = ops.matmul(part.once(part.take(rows)), columns)
        return part.add(kernel, ops.cast(product, dtype))

    by_kernel = parts.walk(step, by_kernel)
    by_bias = (x + ops.sum(slopes, axis=0) for x in by_bias)
    return by_states, by_kernel, *by_bias


def _pair(weights: tuple) -> tuple:
    return weights if len(weights) == 2 else (*weights, None)


def _rows(states):
    return ops.reshape(states, (-1, states.shape[-1]))


def _flat_labels(labels, states):
    labels = ops.convert_to_tensor(labels)
    extra = len(labels.shape) - len(states.shape) + 1
    if extra not in (0, 1) or (extra == 1 and labels.shape[-1] != 1):
        raise ValueError(
            "The labels of VocabularySoftTarget are classes, a number a token; got the "
            f"shape {tuple(labels.shape)} for states {tuple(states.shape)}."
        )
    return ops.cast(ops.reshape(labels, (-1,)), "int32")
