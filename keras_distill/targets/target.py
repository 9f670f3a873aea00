"""The base class of targets, and the functions of logits that they share."""

from typing import ClassVar

import keras
from keras import ops

from keras_distill._backend.configuration import arguments, call_text, own_arguments


class Target:
    """Base class of the distributions that a loss on logits compares the student with.

    A loss on logits consists of a target and a divergence; any target works with any
    divergence. A target that removes part of the teacher's prediction shows what the
    remaining part contributes; a synthetic one uses no teacher.

    A subclass implements `call`, and sets the class attribute `needs` to the keyword
    arguments of `call`, out of `labels`, `sample_ids` and `step`. `needs_one_class` is
    whether its labels must name one class per sample, so that `fit` refuses mixed labels.
    `balanced_share` is the `share` of a loss with this target: how many times as hard as
    the labels a balanced term pulls. Default 1. A class whose logit is -inf, which the
    teacher leaves out, has a log-probability of -inf.

    Example:
        >>> class Sharpened(kd.targets.Target):
        ...     def call(self, teacher, temperature):
        ...         return ops.log_softmax(2 * teacher / temperature)
    """

    needs: ClassVar[tuple[str, ...]] = ()
    needs_one_class: ClassVar[bool] = False
    balanced_share: ClassVar[float] = 1.0

    def __call__(self, teacher, temperature=1.0, **context):
        """Return the log-probabilities that the student is compared with.

        Args:
            teacher: logits, `(..., K)`.
            temperature: temperature of the divergence. Default 1.
            **context: at least the arguments that `needs` names.

        Returns:
            `(..., K)`, logarithms of probabilities that sum to one.
        """
        needed = {name: context[name] for name in self.needs}
        return self.call(teacher, temperature, **needed)

    def call(self, teacher, temperature, **context):
        """Return log-probabilities, `(..., K)`."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the class and its arguments."""
        return call_text(type(self).__name__, own_arguments(self, Target))

    def get_config(self) -> dict:
        return arguments(self, Target)

    @classmethod
    def from_config(cls, config: dict):
        return cls(**keras.saving.deserialize_keras_object(config))


def label_rows(labels, logits):
    """Return labels as rows, in the shape, `(..., K)`, and the dtype of the logits.

    Labels are classes, `(...)` or `(..., 1)`, or rows of probabilities, which are
    returned as they are.
    """
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == len(logits.shape):
        if labels.shape[-1] == logits.shape[-1] > 1:
            return ops.cast(labels, logits.dtype)
        _check_labels(
            labels.shape[:-1] if labels.shape[-1] == 1 else labels.shape, logits
        )
        labels = ops.squeeze(labels, axis=-1)
    _check_labels(labels.shape, logits)
    return ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1], dtype=logits.dtype)


def _check_labels(shape, logits) -> None:
    """Check that there is a label for each row of logits."""
    rows = tuple(logits.shape[:-1])
    pairs = zip(shape, rows, strict=False)
    if len(shape) != len(rows) or not all(
        a == b or {a, b} & {None, 1} for a, b in pairs
    ):
        raise ValueError(
            f"Expected a label for each of the logits {tuple(logits.shape)}: classes of "
            f"the shape {rows}, or rows of probabilities {tuple(logits.shape)}; got "
            f"labels of the shape {tuple(shape)}. Compare logits that have labels, or use "
            "a loss without labels, such as kd.losses.SoftTarget."
        )


def one_hot_labels(labels, logits):
    """Return one-hot labels in the shape, `(..., K)`, and the dtype of the logits.

    Labels are classes, `(...)` or `(..., 1)`, or rows with one nonzero entry; what calls
    it must set `needs_one_class`, by which `fit` refuses mixed rows.
    """
    labels = ops.convert_to_tensor(labels)
    are_rows = len(labels.shape) == len(logits.shape)
    if are_rows and labels.shape[-1] == logits.shape[-1] > 1:
        labels = ops.argmax(labels, axis=-1)
    return label_rows(labels, logits)


def log_rest(log_probabilities, inside):
    """Return the log of the total probability where `inside`, `(..., K)`, is 0, `(..., 1)`."""
    outside = ops.where(inside > 0, LOG_ZERO, log_probabilities)
    return ops.logsumexp(outside, axis=-1, keepdims=True)


def spread_rest(log_probabilities, inside):
    """Keep the probabilities where `inside`, `(..., K)`, is 1; spread the rest evenly.

    Classes whose log-probability is -inf keep it.
    """
    present = log_probabilities > ABSENT
    outside = ops.where(present, 1.0 - inside, 0.0)
    others = ops.sum(outside, axis=-1, keepdims=True)
    rest = log_rest(log_probabilities, inside) - ops.log(ops.maximum(others, 1.0))
    return ops.where(outside > 0, rest, log_probabilities)


def log_fewer(logits, but: int = 0):
    """Return the log of K over the number of classes present, `(..., 1)`.

    Both are less `but`. It is 0 where no logit, `(..., K)`, is -inf.
    """
    count = ops.sum(ops.cast(logits > ABSENT, "float32"), axis=-1, keepdims=True)
    counts = ops.full_like(count, logits.shape[-1]), count
    all_classes, present = (ops.log(ops.maximum(x - but, 1.0)) for x in counts)
    return ops.cast(all_classes - present, logits.dtype)


# A log-probability whose probability is zero in every float type, and the logit of a
# class that a model leaves out.
LOG_ZERO, ABSENT = -1e4, -float("inf")
