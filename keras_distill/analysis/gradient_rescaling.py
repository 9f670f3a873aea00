"""How soft targets rescale the gradient of each sample, and what is left besides."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_distill._backend import gradients
from keras_distill.analysis.predictions import logits_of_both, softmax
from keras_distill.losses import SoftTarget


@dataclasses.dataclass(frozen=True)
class GradientRescaling:
    """Gradients by the student's logits, of distillation against those of the labels.

    Args:
        confidence: the teacher's softened probability of the true class, `(N,)`.
        by_logit: gradient of distillation over that of the labels, `(N, K)`; NaN where
            the latter is below 1e-4.
        by_sample: the same at the logit of the true class, `(N,)`.
        predicted: of `by_sample`, the law of proposition 2, `(N,)`.
        label_part: of soft targets alone, the gradient by the true class's logit,
            `(N,)`.
        wrong_part: the length of the rest of that gradient, `(N,)`.

    Example:
        >>> kd.analysis.gradient_rescaling(student, teacher, digits.train).slope
    """

    confidence: np.ndarray
    by_logit: np.ndarray
    by_sample: np.ndarray
    predicted: np.ndarray
    label_part: np.ndarray
    wrong_part: np.ndarray

    @property
    def _known(self) -> np.ndarray:
        return np.isfinite(self.by_sample)

    @property
    def correlation(self) -> float:
        """Give Pearson's correlation of the factor by sample with the confidence.

        NaN where fewer than two confidences are known.
        """
        x, y = self.confidence[self._known], self.by_sample[self._known]
        return float(np.corrcoef(x, y)[0, 1]) if _differ(x) else float("nan")

    @property
    def slope(self) -> float:
        """Give how much the factor grows from a confidence of 0 to one of 1.

        NaN where fewer than two confidences are known.
        """
        x, y = self.confidence[self._known], self.by_sample[self._known]
        return float(np.polyfit(x, y, 1)[0]) if _differ(x) else float("nan")

    @property
    def label_share(self) -> float:
        """Give the share of the squared gradient that is by the true class's logit."""
        label, wrong = np.sum(self.label_part**2), np.sum(self.wrong_part**2)
        return float(label / (label + wrong))

    @property
    def importance(self) -> np.ndarray:
        """Give the weight of each sample in the label part of a batch of all, `(N,)`.

        In a batch the label's part of born-again networks is that of the labels, with
        each sample weighed by the teacher's confidence: c / sum c.
        """
        return self.confidence / self.confidence.sum()


def gradient_rescaling(
    student: keras.Model,
    teacher: keras.Model,
    samples,
    *,
    temperature: float = 4.0,
    soft_weight: float = 0.9,
    batch_size: int = 1000,
) -> GradientRescaling:
    """Compare the gradient of distillation with that of the labels, by the logits.

    Of a sample with the label t, and w the weight of the soft targets,

        labels:        q_i - y_i
        distillation:  (1 - w)(q_i - y_i) + w T (q~_i - p~_i)

    where q is the student's prediction, and p~ and q~ are softened. Their ratio at the
    true class, which is also that of the sums over all others, is the law of
    proposition 2, the factor T^2 of the loss included:

        (1 - w) + w T (p~_t - q~_t) / (1 - q_t)

    so that a sample on which the teacher is sure counts more. With two classes it is
    the ratio at each logit, and rescaling is all there is. What is measured comes from
    the losses themselves, differentiated.

    Args:
        student, teacher: give logits `(B, K)`.
        samples: with `images` and `labels`.
        temperature: T. Default 4.
        soft_weight: w, 0 to 1; that of the labels is 1 - w. Default 0.9.
        batch_size: of the predictions. Default 1000.

    Returns:
        A `GradientRescaling`.

    Raises:
        ValueError: a weight out of range, or nets of different class counts.

    Example:
        >>> found = kd.analysis.gradient_rescaling(student, teacher, digits.train)
        >>> found.correlation, found.slope, found.label_share
        >>> kd.analysis.plot_gradient_rescaling(found)

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation,
        proposition 2; the parts: Furlanello et al. 2018, Born-again neural networks.
    """
    if not 0.0 <= soft_weight <= 1.0:
        raise ValueError(f"soft_weight lies between 0 and 1; got {soft_weight}.")
    logits = logits_of_both(student, teacher, samples, batch_size)
    labels = np.asarray(samples.labels)
    by_labels, by_teacher = _slopes(*logits, labels, temperature)
    by_both = (1.0 - soft_weight) * by_labels + soft_weight * by_teacher
    known = np.abs(by_labels) > 1e-4
    ratio = np.divide(
        by_both, by_labels, out=np.full_like(by_both, np.nan), where=known
    )
    own = np.arange(len(labels)), labels
    q = softmax(logits[0])[own]
    soft_q, soft_p = (softmax(z, temperature)[own] for z in logits)
    gain = np.divide(
        soft_p - soft_q, 1.0 - q, out=np.full(len(q), np.nan), where=known[own]
    )
    wrong = by_teacher.copy()
    wrong[own] = 0.0
    return GradientRescaling(
        confidence=soft_p,
        by_logit=ratio,
        by_sample=ratio[own],
        predicted=(1.0 - soft_weight) + soft_weight * temperature * gain,
        label_part=by_teacher[own],
        wrong_part=np.linalg.norm(wrong, axis=1),
    )


def plot_gradient_rescaling(found: GradientRescaling):
    """Draw each sample's factor against the teacher's confidence, and against the law.

    Args:
        found: of `gradient_rescaling`.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> kd.analysis.plot_gradient_rescaling(found).savefig("rescaling.png")
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(found.confidence, found.by_sample, s=6, alpha=0.5)
    left.set(
        xlabel="teacher's confidence in the true class",
        ylabel="gradient of distillation / of labels",
        title=f"slope {found.slope:.2f}, correlation {found.correlation:.2f}",
    )
    right.scatter(found.predicted, found.by_sample, s=6, alpha=0.5)
    known = found.predicted[np.isfinite(found.predicted)]
    ends = [known.min(), known.max()] if len(known) else []
    right.plot(ends, ends, color="black", linewidth=0.8)
    right.set(xlabel="predicted", ylabel="measured", title="the law of proposition 2")
    return figure


def _differ(values: np.ndarray) -> bool:
    return len(values) > 0 and bool(np.ptp(values) > 0)


def _slopes(student, teacher, labels, temperature) -> tuple[np.ndarray, np.ndarray]:
    """Differentiate both losses by the student's logits, each `(N, K)`."""
    soft = SoftTarget(temperature, reduction="sum")
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    given = ops.cast(teacher, "float32")

    def losses(logits):
        return {"labels": hard(labels, logits), "soft": soft(given, logits)}, None

    found, _ = gradients.by_input(losses, ops.cast(student, "float32"))
    return tuple(
        ops.convert_to_numpy(found[name]).astype("float64")
        for name in ("labels", "soft")
    )
