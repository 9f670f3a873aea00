"""Agreement of a student with its teacher, calibration, and accuracy by class."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from keras_distill._backend.number_checks import check_integers
from keras_distill.analysis.figures import new_figure
from keras_distill.analysis.predictions import (
    classes_of,
    log_softmax,
    logits_of,
    logits_of_both,
    ratio,
    softmax,
)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How closely a student's predictions follow its teacher's.

    Args:
        top: fraction of samples on which both predict the same class.
        divergence: mean KL(teacher || student) in nats, at T = 1.
        top_where_wrong: `top` over the samples that the teacher gets wrong; NaN if there
            are none.

    Example:
        >>> kd.analysis.agreement(student, teacher=teacher, samples=digits.test).divergence
    """

    top: float
    divergence: float
    top_where_wrong: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Accuracy of a model by its confidence.

    Args:
        confidence: mean of the largest probability in each bin, `(bins,)`; NaN in
            empty bins.
        accuracy: fraction of correct predictions in each bin, `(bins,)`.
        counts: number of samples in each bin, `(bins,)`.

    Example:
        >>> kd.analysis.calibration(student, digits.test).counts
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray

    @property
    def error(self) -> float:
        """Return the expected calibration error: the mean `|accuracy - confidence|`."""
        full = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[full]
        return float((gaps * self.counts[full]).sum() / self.counts.sum())


def agreement(
    student: keras.Model, *, teacher: keras.Model, samples, batch_size: int = 1000
) -> Agreement:
    """Measure the fidelity of a student to its teacher.

    Fidelity is not accuracy: a student may be right where its teacher is wrong. One that
    repeats the teacher's errors learned from the teacher, not from the labels.

    Args:
        student, teacher: models that return logits `(B, K)`.
        samples: `kd.data.Samples`, or any object with `images` and `labels`.
        batch_size: Default 1000.

    Returns:
        An `Agreement`.

    Raises:
        ValueError: the models differ in the number of classes, or return probabilities.

    Example:
        >>> kd.analysis.agreement(student, teacher=teacher, samples=digits.test).top

    Source:
        Stanton et al. 2021, Does knowledge distillation really work?
    """
    logits = logits_of_both(student, teacher, samples, batch_size)
    log_q, log_p = (log_softmax(z) for z in logits)
    student_class, teacher_class = (z.argmax(-1) for z in logits)
    same = student_class == teacher_class
    wrong = teacher_class != classes_of(samples)
    return Agreement(
        top=float(same.mean()),
        divergence=float(_divergence(log_p, log_q).mean()),
        top_where_wrong=float(same[wrong].mean()) if wrong.any() else float("nan"),
    )


def _divergence(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """Return KL(p || q) of rows, `(N,)`; a class of p = 0 adds nothing."""
    p = np.exp(log_p)
    gap = np.subtract(log_p, log_q, out=np.zeros_like(p), where=p > 0)
    return (p * gap).sum(-1)


def plot_agreement(agreements: Mapping[str, Agreement]):
    """Return a figure of the agreement on all samples and where the teacher is wrong.

    Args:
        agreements: results of `agreement`, by the name of the student.

    Example:
        >>> found = kd.analysis.agreement(student, teacher=teacher, samples=digits.test)
        >>> kd.analysis.plot_agreement({"student": found})
    """
    figure, axes = new_figure(1.5 + 1.2 * len(agreements), 3.4)
    positions = np.arange(len(agreements))
    bars = {
        "all samples": [one.top for one in agreements.values()],
        "teacher is wrong": [one.top_where_wrong for one in agreements.values()],
    }
    for number, (title, values) in enumerate(bars.items()):
        axes.bar(positions + 0.4 * number, values, 0.4, label=title)
    axes.set_xticks(positions + 0.2, list(agreements))
    axes.set(ylabel="agreement with the teacher", ylim=(0, 1))
    axes.legend(fontsize="small")
    return figure


def calibration(
    model: keras.Model, samples, *, bins: int = 15, batch_size: int = 1000
) -> Calibration:
    """Compute the accuracy of a model in bins of its confidence.

    Args:
        model: returns logits `(B, K)`.
        samples: `kd.data.Samples`, or any object with `images` and `labels`.
        bins: number of bins of equal width between 0 and 1. Default 15.
        batch_size: Default 1000.

    Returns:
        A `Calibration`.

    Raises:
        ValueError: `bins` is below 1.

    Example:
        >>> kd.analysis.calibration(student, digits.test).error

    Source:
        Guo et al. 2017, On calibration of modern neural networks.
    """
    check_integers(1, bins=bins)
    p = softmax(logits_of(model, samples, batch_size))
    confidence, correct = p.max(-1), p.argmax(-1) == classes_of(samples)
    indices = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(indices, minlength=bins)
    sums = (np.bincount(indices, values, bins) for values in (confidence, correct))
    return Calibration(*(ratio(total, counts) for total in sums), counts)


def plot_reliability(calibrations: Mapping[str, Calibration]):
    """Return a figure of the reliability diagrams of one or more models.

    Args:
        calibrations: results of `calibration`, by the name of the model.

    Example:
        >>> kd.analysis.plot_reliability(
        ...     {"student": kd.analysis.calibration(student, digits.test)})
    """
    figure, axes = new_figure(4.2, 3.8)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for name, one in calibrations.items():
        full = one.counts > 0
        label = f"{name}, error {one.error:.3f}"
        axes.plot(one.confidence[full], one.accuracy[full], "o-", label=label)
    axes.set(xlabel="confidence", ylabel="accuracy")
    axes.legend(fontsize="small")
    return figure


def by_class(
    models: Mapping[str, keras.Model], samples, *, batch_size: int = 1000
) -> dict[str, np.ndarray]:
    """Compute the accuracy of each model on each class.

    Args:
        models: by name.
        samples: `kd.data.Samples`, or any object with `images` and `labels`.
        batch_size: Default 1000.

    Returns:
        Accuracies `(K,)` between 0 and 1, by name; NaN for classes without samples.

    Example:
        >>> students = {"alone": alone, "distilled": distilled}
        >>> found = kd.analysis.by_class(students, digits.test)
        >>> gains = found["distilled"] - found["alone"]
    """
    labels, accuracies = classes_of(samples), {}
    for name, model in models.items():
        logits = logits_of(model, samples, batch_size)
        classes = logits.shape[-1]
        correct = np.bincount(labels[logits.argmax(-1) == labels], minlength=classes)
        counts = np.bincount(labels, minlength=classes)
        accuracies[name] = ratio(correct, counts)
    return accuracies


def plot_by_class(accuracies: Mapping[str, np.ndarray], against: str, names=None):
    """Return a figure of the accuracy that each model gains on each class over a baseline.

    Args:
        accuracies: result of `by_class`.
        against: name of the model that is the baseline.
        names: names of the classes. Default: their indices.

    Raises:
        ValueError: `against` is not among the models.

    Example:
        >>> students = {"alone": alone, "distilled": distilled}
        >>> found = kd.analysis.by_class(students, digits.test)
        >>> kd.analysis.plot_by_class(found, against="alone")
    """
    if against not in accuracies:
        raise ValueError(f"against must be in {list(accuracies)}; got {against!r}.")
    compared = [name for name in accuracies if name != against]
    figure, axes = new_figure(7, 3.4)
    positions, width = np.arange(len(accuracies[against])), 0.8 / max(1, len(compared))
    for number, name in enumerate(compared):
        gains = 100 * (accuracies[name] - accuracies[against])
        axes.bar(positions + number * width, gains, width, label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(positions + 0.4 - width / 2, names or positions)
    axes.set(xlabel="class", ylabel=f"accuracy gain over '{against}', points")
    axes.legend(fontsize="small")
    return figure
