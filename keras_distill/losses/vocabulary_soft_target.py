"""Soft targets over a vocabulary, without holding the logits of all tokens."""

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill._backend.chunks import Chunks, buffer, chunk_size, empty_buffer
from keras_distill._backend.gradients import custom_gradient
from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.adapters.match import Match
from keras_distill.losses import _close
from keras_distill.losses._entropy import at_label
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.soft_target import difference, divergence, prediction
from keras_distill.losses.temperature import check_temperature, is_high
from keras_distill.taps.heads import Head

# Chunks, the least tokens of a chunk, and parts in which the kernel's gradient is summed.
COUNT, LEAST, PARTS = 32, 32, 8


@keras.saving.register_keras_serializable(package="keras_distill")
class VocabularySoftTarget(DistillationLoss):
    r"""Soft targets, and labels, computed from the states that enter the last layers.

    The logits `(B, L, V)` of a language model are its largest tensor. Here the last
    matrix product of both models is computed for a chunk of tokens at a time, forward
    and again backward, so that only some `(chunk, V)` of them are held:

    .. math::

        \ell &= T^2 \sum_k p_k (\log p_k - \log q_k) - \lambda \log \mathrm{softmax}(z_s)_y

        p &= \mathrm{softmax}(z_t / T), \quad q = \mathrm{softmax}(z_s / T),
            \quad z = h W + b

    with the states h and lambda, the `label_weight`. Value and gradients are those of
    `SoftTarget` on the logits and of the labels' cross-entropy. Tap the input of the
    last layer on both sides, a `Dense` without activation or a `ReversibleEmbedding`
    used in reverse. If the distiller is compiled without a loss and metrics, nothing
    else needs the logits, and the compiled steps of TensorFlow and JAX leave them out;
    torch computes the layer all the same. A mask and sample weights apply to both
    parts. It has no second derivative.

    Recommended weight: 1.0.

    Args:
        temperature: T > 0, a number or a schedule of steps. Default 4.
        label_weight: of the labels' cross-entropy, 0 or more. Default 0: no labels.
        chunk: tokens at a time. Default: a 32nd of them, but at least 32.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `temperature` is not above 0, or too high, as in `SoftTarget`,
            `label_weight` is negative, or `chunk` is below 1; in a distiller, a tap is
            of another kind, or the vocabularies differ.

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
    predicts = "classes"
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
        check_temperature(temperature, self.dtype)
        self.temperature = temperature
        check_in(0, label_weight=label_weight)
        if chunk is not None:
            check_integers(1, chunk=chunk)
        self.label_weight = label_weight
        self.chunk = chunk
        self.needs = ("teacher_head", "student_head")
        self.needs += ("labels",) if label_weight else ()
        self.labels_are_classes = label_weight > 0

    def call(
        self, teacher, student, *, temperature, teacher_head, student_head, labels=None
    ):
        """Return `(B, L)` for states `(B, L, D)`, `(B,)` for `(B, D)`.

        Args:
            teacher: the states that enter the teacher's last layer.
            student: the student's; their D may differ.
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
        targets = _Targets(
            _rows(teacher),
            teacher_head,
            labels,
            temperature,
            self.label_weight,
            is_high(self.temperature),
        )
        tokens = ops.shape(targets.teacher)[0]
        chunks = Chunks(tokens, self.chunk or chunk_size(tokens, COUNT, LEAST))
        values = _values(targets, chunks, _rows(student), student_head)
        return ops.reshape(values, ops.shape(student)[:-1])


class _Targets:
    """What the student's logits of a chunk are compared with."""

    def __init__(self, teacher, head, labels, temperature, label_weight, high):
        self.teacher, self.head, self.labels = teacher, head, labels
        self.temperature, self.label_weight = temperature, label_weight
        self.high = high
        self.dtype = temperature.dtype

    def loss(self, chunk, student):
        """Return the loss of logits, `(size,)`."""
        sides = self._softened(chunk), student / self.temperature
        values = divergence(*map(prediction, sides))
        if self.high:
            values = _close.where_close(*_close.divergence(*sides), values)
        values = ops.square(self.temperature) * values
        if self.labels is None:
            return values
        true = at_label(self._one_hot(chunk, student), student)
        return values + self.label_weight * (ops.logsumexp(student, axis=-1) - true)

    def gradient(self, chunk, student):
        """Return the gradient with respect to the logits, `(size, V)`."""
        sides = self._softened(chunk), student / self.temperature
        soft = self.temperature * difference(*sides, self.high)
        if self.labels is None:
            return soft
        hard = ops.softmax(student, axis=-1) - self._one_hot(chunk, student)
        return soft + self.label_weight * hard

    def _softened(self, chunk):
        logits = self.head.logits(chunk.take(self.teacher))
        return ops.cast(logits, self.dtype) / self.temperature

    def _one_hot(self, chunk, student):
        labels = chunk.take(self.labels)
        return ops.one_hot(labels, student.shape[-1], dtype=self.dtype)


def _values(targets: _Targets, chunks: Chunks, states, head: Head):
    """Return each token's loss, `(N,)`, differentiable by states, kernel and bias."""

    @custom_gradient
    def values(states, *weights):
        kernel, *bias = weights
        student = Head(kernel, bias[0] if bias else None, head.transposed)

        def logits(chunk):
            return ops.cast(student.logits(chunk.take(states)), targets.dtype)

        def loss(chunk, losses):
            return chunk.put(losses, targets.loss(chunk, logits(chunk)))

        def gradient(upstream):
            def step(chunk, sums):
                rows = targets.gradient(chunk, logits(chunk))
                rows = chunk.once(chunk.take(upstream[:, None])) * rows
                return _add(sums, chunk, student, states, rows)

            inputs = states, *weights
            sums = tuple(buffer(ops.shape(x), targets.dtype) for x in inputs)
            sums = chunks.walk(step, sums)
            return tuple(
                ops.cast(x, like.dtype) for x, like in zip(sums, inputs, strict=True)
            )

        losses = empty_buffer((chunks.rows,), targets.dtype)
        return chunks.walk(loss, losses), gradient

    return values(states, *(x for x in head[:2] if x is not None))


def _add(sums: tuple, chunk, head: Head, states, gradient) -> tuple:
    """Add a chunk's part to the gradients by states, kernel and bias."""
    by_states, by_kernel, *by_bias = sums
    dtype = by_states.dtype
    by_states = chunk.add(by_states, ops.cast(head.states_gradient(gradient), dtype))
    rows, columns = head.kernel_factors(chunk.take(states), gradient)
    parts = Chunks(rows.shape[0], -(-rows.shape[0] // PARTS))

    def step(part, kernel):
        product = ops.matmul(part.once(part.take(rows)), columns)
        return part.add(kernel, ops.cast(product, dtype))

    by_kernel = parts.walk(step, by_kernel)
    by_bias = (x + ops.sum(gradient, axis=0) for x in by_bias)
    return by_states, by_kernel, *by_bias


def _rows(states):
    return ops.reshape(states, (-1, states.shape[-1]))


def _flat_labels(labels, states):
    labels = ops.convert_to_tensor(labels)
    extra = len(labels.shape) - len(states.shape) + 1
    if extra not in (0, 1) or (extra == 1 and labels.shape[-1] != 1):
        raise ValueError(
            "VocabularySoftTarget needs one class per token as labels; got the shape "
            f"{tuple(labels.shape)} for states {tuple(states.shape)}."
        )
    return ops.cast(ops.reshape(labels, (-1,)), "int32")
