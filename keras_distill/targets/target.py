"""What every target shares: its place between a teacher's logits and a divergence."""

from __future__ import annotations

from typing import ClassVar

import keras
from keras import ops


class Target:
    """What a teacher's prediction is turned into before a student is compared with it.

    A target is one part of a loss on logits, the divergence that compares is the
    other, and any goes with any. A target that leaves something out of the prediction
    shows what the rest of it is worth; one that is made up needs no teacher's
    knowledge.

    A target subclasses this, writes `call`, and sets the class attribute `needs` to
    what `call` asks for by name, out of `labels`, `sample_ids` and `step`.

    Example:
        >>> class Sharpened(kd.targets.Target):
        ...     def call(self, teacher, temperature):
        ...         return ops.log_softmax(2 * teacher / temperature)
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __call__(self, teacher, temperature=1.0, **context):
        """Give the log-probabilities that the student is compared with.

        Args:
            teacher: logits, `(..., K)`.
            temperature: at which the divergence compares.
            **context: what `needs` names, and more.

        Returns:
            `(..., K)`, each row the logarithms of probabilities that sum to one.
        """
        needed = {name: context[name] for name in self.needs}
        return self.call(teacher, temperature, **needed)

    def call(self, teacher, temperature, **context):
        """Give log-probabilities, `(..., K)`."""
        raise NotImplementedError

    def get_config(self) -> dict:
        """Give the arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict):
        """Make a target from its arguments."""
        return cls(**keras.saving.deserialize_keras_object(config))


def true_class(labels, logits):
    """Give 1 at each label and 0 elsewhere, in the logits' shape and type.

    Args:
        labels: classes, `(...)` or `(..., 1)`, or probabilities, `(..., K)`, of which
            the largest counts.
        logits: `(..., K)`.
    """
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == len(logits.shape):
        if labels.shape[-1] == logits.shape[-1] > 1:
            labels = ops.argmax(labels, axis=-1)
        else:
            labels = ops.squeeze(labels, axis=-1)
    return ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1], dtype=logits.dtype)


def spread(inside, log_mass):
    """Spread a mass evenly over the classes outside of `inside`, in log space.

    Args:
        inside: `(..., K)`, 1 for classes that get nothing of it.
        log_mass: `(..., 1)`.
    """
    others = ops.sum(1.0 - inside, axis=-1, keepdims=True)
    return log_mass - ops.log(ops.maximum(others, 1.0))


def rest_of(log_probabilities, inside):
    """Give the logarithm of the mass outside of `inside`, `(..., 1)`."""
    outside = ops.where(inside > 0, NOTHING, log_probabilities)
    return ops.logsumexp(outside, axis=-1, keepdims=True)


# The logarithm of a probability that is zero in every float type.
NOTHING = -1e4
