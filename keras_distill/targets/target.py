"""The base class of targets, and the functions of logits that they share."""

from typing import ClassVar

import keras
from keras import ops

from keras_distill._backend.configuration import arguments


class Target:
    """Base class of the distributions that a loss on logits compares the student with.

    A loss on logits consists of a target and a divergence; any target works with any
    divergence. A target that removes part of the teacher's prediction shows what the
    remaining part contributes; a synthetic one uses no teacher.

    A subclass implements `call`, and sets the class attribute `needs` to the keyword
    arguments of `call`, out of `labels`, `sample_ids` and `step`.

    Example:
        >>> class Sharpened(kd.targets.Target):
        ...     def call(self, teacher, temperature):
        ...         return ops.log_softmax(2 * teacher / temperature)
    """

    needs: ClassVar[tuple[str, ...]] = ()

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

    def get_config(self) -> dict:
        return arguments(self, Target)

    @classmethod
    def from_config(cls, config: dict):
        return cls(**keras.saving.deserialize_keras_object(config))


def one_hot_labels(labels, logits):
    """Return one-hot labels in the shape, `(..., K)`, and the dtype of the logits.

    Labels are classes, `(...)` or `(..., 1)`, or probabilities, whose argmax is taken.
    """
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == len(logits.shape):
        if labels.shape[-1] == logits.shape[-1] > 1:
            labels = ops.argmax(labels, axis=-1)
        else:
            labels = ops.squeeze(labels, axis=-1)
    return ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1], dtype=logits.dtype)


def log_rest(log_probabilities, inside):
    """Return the log of the total probability where `inside`, `(..., K)`, is 0, `(..., 1)`."""
    outside = ops.where(inside > 0, LOG_ZERO, log_probabilities)
    return ops.logsumexp(outside, axis=-1, keepdims=True)


def spread_rest(log_probabilities, inside):
    """Keep the probabilities where `inside`, `(..., K)`, is 1; spread the rest evenly."""
    others = ops.sum(1.0 - inside, axis=-1, keepdims=True)
    rest = log_rest(log_probabilities, inside) - ops.log(ops.maximum(others, 1.0))
    return ops.where(inside > 0, log_probabilities, rest)


# A log-probability whose probability is zero in every float type.
LOG_ZERO = -1e4
