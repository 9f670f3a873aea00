"""Samples that a student gets right and its teacher wrong, and the reverse."""

import dataclasses

import keras
import numpy as np

from keras_distill.analysis.predictions import classes_of, logits_of_both, softmax


@dataclasses.dataclass(frozen=True)
class WonAndLost:
    """Samples on which only one of a student and its teacher is right.

    Args:
        won: indices of the samples that only the student gets right.
        lost: indices of the samples that only the teacher gets right.

    Example:
        >>> found = kd.analysis.won_and_lost(
        ...     student, teacher=teacher, samples=digits.test)
        >>> digits.test[found.lost[:8]]
    """

    won: np.ndarray
    lost: np.ndarray


def won_and_lost(
    student: keras.Model, *, teacher: keras.Model, samples, batch_size: int = 1000
) -> WonAndLost:
    """Find the samples that a student wins and loses compared with its teacher.

    Both are sorted, from the largest to the smallest, by the difference of the
    probabilities that the two models assign to the label, at temperature 1.

    Args:
        student, teacher: models that return logits `(B, K)`.
        samples: `kd.data.Samples`, or any object with `images` and `labels`.
        batch_size: Default 1000.

    Returns:
        A `WonAndLost`.

    Raises:
        ValueError: the models differ in the number of classes, or return probabilities.

    Example:
        >>> found = kd.analysis.won_and_lost(
        ...     student, teacher=teacher, samples=digits.test)
        >>> len(found.won), len(found.lost)
    """
    labels = classes_of(samples)
    logits = logits_of_both(student, teacher, samples, batch_size)
    ours, theirs = (z.argmax(-1) == labels for z in logits)
    p = [softmax(z)[np.arange(len(labels)), labels] for z in logits]
    order = np.argsort(p[0] - p[1], kind="stable")
    return WonAndLost(
        won=order[::-1][(ours & ~theirs)[order[::-1]]],
        lost=order[(theirs & ~ours)[order]],
    )
