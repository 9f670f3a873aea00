"""What the student took: how far it says what its teacher says, and how surely."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from keras_distill.analysis.predictions import (
    log_softmax,
    logits_of,
    logits_of_both,
    softmax,
)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far a student says what its teacher says.

    Args:
        top: share of samples on which both name the same class first.
        divergence: mean of KL(p || q) in nats, at T = 1.
        top_where_wrong: the share where the teacher is wrong; NaN if it never is.

    Example:
        >>> kd.analysis.agreement(teacher, student, digits.test).top_where_wrong
    """

    top: float
    divergence: float
    top_where_wrong: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How often a model is right where it is so sure.

    Args:
        confidence: mean of the largest probability in each bin, `(bins,)`; NaN in
            empty ones.
        accuracy: share that is right in each bin, `(bins,)`.
        counts: samples in each bin, `(bins,)`.

    Example:
        >>> kd.analysis.calibration(student, digits.test).counts
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray

    @property
    def error(self) -> float:
        """Give the expected calibration error: the mean gap of accuracy and confidence."""
        full = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[full]
        return float((gaps * self.counts[full]).sum() / self.counts.sum())


def agreement(
    teacher: keras.Model, student: keras.Model, samples, *, batch_size: int = 1000
) -> Agreement:
    """Measure a student's fidelity to its teacher.

    A student may be right where the teacher is wrong: fidelity is not accuracy, and a
    student that agrees with its teacher's errors has taken its knowledge, not the
    labels'.

    Args:
        teacher, student: give logits `(B, K)`.
        samples: with `images` and `labels`.
        batch_size: Default 1000.

    Returns:
        An `Agreement`.

    Raises:
        ValueError: nets of different class counts, or that give probabilities.

    Example:
        >>> kd.analysis.agreement(teacher, student, digits.test).top

    Source:
        Stanton et al. 2021, Does knowledge distillation really work?
    """
    logits = logits_of_both(teacher, student, samples, batch_size)
    log_p, log_q = (log_softmax(z) for z in logits)
    first = [z.argmax(-1) for z in logits]
    same = first[0] == first[1]
    wrong = first[0] != np.asarray(samples.labels)
    return Agreement(
        top=float(same.mean()),
        divergence=float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean()),
        top_where_wrong=float(same[wrong].mean()) if wrong.any() else float("nan"),
    )


def plot_agreement(found: Mapping[str, Agreement]):
    """Draw how often students agree with their teacher, at all and where it is wrong.

    Args:
        found: of `agreement`, by the name of the student.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> kd.analysis.plot_agreement(
        ...     {"student": kd.analysis.agreement(teacher, student, digits.test)})
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 1.2 * len(found), 3.4), layout="constrained")
    axes, places = figure.subplots(), np.arange(len(found))
    shares = {
        "all samples": [one.top for one in found.values()],
        "where the teacher is wrong": [one.top_where_wrong for one in found.values()],
    }
    for number, (title, values) in enumerate(shares.items()):
        axes.bar(places + 0.4 * number, values, 0.4, label=title)
    axes.set_xticks(places + 0.2, list(found))
    axes.set(ylabel="share of the teacher's classes", ylim=(0, 1))
    axes.legend(fontsize="small")
    return figure


def calibration(
    model: keras.Model, samples, *, bins: int = 15, batch_size: int = 1000
) -> Calibration:
    """Sort samples by how sure a model is of them, and count how often it is right.

    Args:
        model: gives logits `(B, K)`.
        samples: with `images` and `labels`.
        bins: of equal width between 0 and 1. Default 15.
        batch_size: Default 1000.

    Returns:
        A `Calibration`.

    Raises:
        ValueError: no bins.

    Example:
        >>> kd.analysis.calibration(student, digits.test).error

    Source:
        Guo et al. 2017, On calibration of modern neural networks.
    """
    if bins < 1:
        raise ValueError(f"bins is 1 or more; got {bins}.")
    p = softmax(logits_of(model, samples, batch_size))
    sure, right = p.max(-1), p.argmax(-1) == np.asarray(samples.labels)
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    means = [
        np.divide(
            np.bincount(place, values, bins),
            counts,
            out=np.full(bins, np.nan),
            where=counts > 0,
        )
        for values in (sure, right.astype(float))
    ]
    return Calibration(*means, counts)


def plot_reliability(found: Mapping[str, Calibration]):
    """Draw the reliability diagram of some models.

    Args:
        found: of `calibration`, by the name of the model.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> kd.analysis.plot_reliability(
        ...     {"student": kd.analysis.calibration(student, digits.test)})
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for name, one in found.items():
        full = one.counts > 0
        label = f"{name}, error {one.error:.3f}"
        axes.plot(one.confidence[full], one.accuracy[full], "o-", label=label)
    axes.set(xlabel="confidence", ylabel="share that is right")
    axes.legend(fontsize="small")
    return figure


def by_class(
    models: Mapping[str, keras.Model], samples, *, batch_size: int = 1000
) -> dict[str, np.ndarray]:
    """Give each model's accuracy on the samples of each class.

    Args:
        models: by name.
        samples: with `images` and `labels`.
        batch_size: Default 1000.

    Returns:
        By name, shares `(K,)`; NaN for classes without samples.

    Example:
        >>> found = kd.analysis.by_class({"alone": a, "distilled": b}, digits.test)
        >>> gains = found["distilled"] - found["alone"]
    """
    labels, found = np.asarray(samples.labels), {}
    for name, model in models.items():
        logits = logits_of(model, samples, batch_size)
        classes = logits.shape[-1]
        right = np.bincount(labels[logits.argmax(-1) == labels], minlength=classes)
        counts = np.bincount(labels, minlength=classes)
        found[name] = np.divide(
            right, counts, out=np.full(classes, np.nan), where=counts > 0
        )
    return found


def plot_by_class(found: Mapping[str, np.ndarray], against: str, names=None):
    """Draw how much each model gains on each class over one of them.

    Args:
        found: of `by_class`.
        against: the name of the one.
        names: of the classes. Default: their numbers.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: there is no such model.

    Example:
        >>> kd.analysis.plot_by_class(found, against="alone")
    """
    from matplotlib.figure import Figure

    if against not in found:
        raise ValueError(f"against is one of {list(found)}; got {against!r}.")
    others = [name for name in found if name != against]
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    places, width = np.arange(len(found[against])), 0.8 / max(1, len(others))
    for number, name in enumerate(others):
        gains = 100 * (found[name] - found[against])
        axes.bar(places + number * width, gains, width, label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(places + 0.4 - width / 2, names or places)
    axes.set(xlabel="class", ylabel=f"points of accuracy over '{against}'")
    axes.legend(fontsize="small")
    return figure
