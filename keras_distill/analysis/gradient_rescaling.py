"""Rescaling of each sample's gradient by soft targets."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_distill._backend import gradients
from keras_distill._backend.number_checks import check_above, check_finite
from keras_distill.analysis.figures import new_figure
from keras_distill.analysis.predictions import (
    classes_of,
    logits_of_both,
    ratio,
    softmax,
)
from keras_distill.losses import SoftTarget


@dataclasses.dataclass(frozen=True)
class GradientRescaling:
    """Gradients of distillation and of the labels with respect to the student's logits.

    Args:
        confidence: the teacher's softened probability of the true class, `(N,)`.
        by_logit: gradient of distillation divided by that of the labels, `(N, K)`; NaN
            where the latter is below 1e-4.
        by_sample: the same ratio at the logit of the true class, `(N,)`.
        predicted: `by_sample` as predicted by proposition 2, `(N,)`.
        label_part: gradient of the soft targets alone at the true class's logit, `(N,)`.
        wrong_part: norm of that gradient over the other logits, `(N,)`.

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
    def correlation(self) -> float:
        """Return Pearson's correlation of `by_sample` with the confidence.

        NaN if fewer than two confidences with a finite ratio differ.
        """
        return self._if_defined(lambda x, y: np.corrcoef(x, y)[0, 1])

    @property
    def slope(self) -> float:
        """Return the slope of the linear fit of `by_sample` to the confidence.

        NaN if fewer than two confidences with a finite ratio differ.
        """
        return self._if_defined(lambda x, y: np.polyfit(x, y, 1)[0])

    def _if_defined(self, statistic) -> float:
        finite = np.isfinite(self.by_sample)
        x, y = self.confidence[finite], self.by_sample[finite]
        return float(statistic(x, y)) if len(x) and np.ptp(x) > 0 else float("nan")

    @property
    def label_fraction(self) -> float:
        """Return the fraction of the squared gradient at the true class's logit."""
        label, wrong = np.sum(self.label_part**2), np.sum(self.wrong_part**2)
        return float(label / (label + wrong))

    @property
    def importance(self) -> np.ndarray:
        """Return the weight of each sample in the label part, all as one batch, `(N,)`.

        The label part of born-again networks is the gradient of the labels with each
        sample weighted by the teacher's confidence: c / sum c.
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
    r"""Compare the gradients of distillation and of the labels at the student's logits.

    For a sample of class t, and the weight w of the soft targets,

    .. math::

        g_i &= q_i - y_i \quad \text{(labels)}

        g'_i &= (1 - w)(q_i - y_i) + w T (\tilde q_i - \tilde p_i)
            \quad \text{(distillation)}

    where q is the student's prediction, and p and q with a tilde are softened. Their
    ratio at the true class, which equals that of the sums over all other classes, is
    given by proposition 2, including the factor T^2 of the loss:

    .. math::

        \frac{g'_t}{g_t} = (1 - w) + w T \, \frac{\tilde p_t - \tilde q_t}{1 - q_t}

    so samples on which the teacher is confident count more. With two classes this is the
    ratio at each logit, and distillation only rescales the gradient. The measured
    gradients are obtained by differentiating the losses.

    Args:
        student, teacher: models that return logits `(B, K)`.
        samples: `kd.data.Samples`, or any object with `images` and `labels`.
        temperature: T. Default 4.
        soft_weight: w, 0 to 1; the weight of the labels is 1 - w. Default 0.9.
        batch_size: batch size of the predictions. Default 1000.

    Returns:
        A `GradientRescaling`.

    Raises:
        ValueError: `soft_weight` is out of range, or the models' classes differ.

    Example:
        >>> found = kd.analysis.gradient_rescaling(student, teacher, digits.train)
        >>> found.correlation, found.slope, found.label_fraction
        >>> kd.analysis.plot_gradient_rescaling(found)

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation,
        proposition 2; the parts: Furlanello et al. 2018, Born-again neural networks.
    """
    check_finite(soft_weight=soft_weight)
    check_above(0, temperature=temperature)
    if not 0.0 <= soft_weight <= 1.0:
        raise ValueError(f"soft_weight must be between 0 and 1; got {soft_weight}.")
    logits = logits_of_both(student, teacher, samples, batch_size)
    labels = classes_of(samples)
    hard, soft = _gradients(*logits, labels, temperature)
    both = (1.0 - soft_weight) * hard + soft_weight * soft
    nonzero = np.abs(hard) > 1e-4
    by_logit = ratio(both, hard, nonzero)
    true_class = np.arange(len(labels)), labels
    q = softmax(logits[0])[true_class]
    soft_q, soft_p = (softmax(z, temperature)[true_class] for z in logits)
    gain = ratio(soft_p - soft_q, 1.0 - q, nonzero[true_class])
    wrong = soft.copy()
    wrong[true_class] = 0.0
    return GradientRescaling(
        confidence=soft_p,
        by_logit=by_logit,
        by_sample=by_logit[true_class],
        predicted=(1.0 - soft_weight) + soft_weight * temperature * gain,
        label_part=soft[true_class],
        wrong_part=np.linalg.norm(wrong, axis=1),
    )


def plot_gradient_rescaling(rescaling: GradientRescaling):
    """Return a figure of the ratio by the teacher's confidence, and by the prediction.

    Args:
        rescaling: result of `gradient_rescaling`.

    Example:
        >>> found = kd.analysis.gradient_rescaling(student, teacher, digits.train)
        >>> kd.analysis.plot_gradient_rescaling(found).savefig("rescaling.png")
    """
    figure, ((left, right),) = new_figure(9, 3.8, 1, 2)
    left.scatter(rescaling.confidence, rescaling.by_sample, s=6, alpha=0.5)
    left.set(
        xlabel="teacher's confidence in the true class",
        ylabel="gradient of distillation / of labels",
        title=f"slope {rescaling.slope:.2f}, correlation {rescaling.correlation:.2f}",
    )
    right.scatter(rescaling.predicted, rescaling.by_sample, s=6, alpha=0.5)
    predicted = rescaling.predicted[np.isfinite(rescaling.predicted)]
    ends = [predicted.min(), predicted.max()] if len(predicted) else []
    right.plot(ends, ends, color="black", linewidth=0.8)
    right.set(xlabel="predicted", ylabel="measured", title="proposition 2")
    return figure


def _gradients(student, teacher, labels, temperature) -> tuple[np.ndarray, np.ndarray]:
    """Differentiate both losses with respect to the student's logits, each `(N, K)`."""
    soft = SoftTarget(temperature, reduction="sum")
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    teacher = ops.cast(teacher, "float32")

    def losses(logits):
        return {"hard": hard(labels, logits), "soft": soft(teacher, logits)}, None

    by_loss, _ = gradients.by_input(losses, ops.cast(student, "float32"))
    return tuple(
        ops.convert_to_numpy(by_loss[name]).astype("float64")
        for name in ("hard", "soft")
    )
