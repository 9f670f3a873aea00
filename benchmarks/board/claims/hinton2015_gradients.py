"""Hinton 2015, section 1: gradients of soft targets vary less between training cases."""

import keras
import numpy as np
from scipy import special

import keras_distill as kd
from claims import noisy_classes
from claims.protocol import Claim, Protocol
from claims.training import fit, logits_of, stored

TEACHER, STUDENT, BATCH = (128, 128, 128), (64, 64), 100
POINTS, EPOCHS = {"teacher": 40_000, "student": 4_000}, {"teacher": 8, "student": 10}
ROWS = {"labels": None, "soft targets, T = 1": 1.0, "soft targets, T = 4": 4.0}
MEASURES = "before training", "after 1 epoch", f"after {EPOCHS['student']} epochs"
SETTINGS = {
    "units": {"teacher": TEACHER, "student": STUDENT},
    "points": POINTS,
    "epochs": EPOCHS,
    "batch": BATCH,
    **noisy_classes.RELATED,
    "seen": noisy_classes.SEEN,
}
SMOKE = {
    "POINTS": {"teacher": 400, "student": 200},
    "EPOCHS": {"teacher": 1, "student": 2},
}
ABOUT = f"""Hinton et al. state that "when the soft targets have high entropy, they provide
[...] much less variance in the gradient between training cases", without a figure. Measured
here: the trace of the covariance of the gradients of single training cases, over the
squared norm of their mean, which is the gradient of the training loss. Small-scale
stand-in: the synthetic classes with noisy labels of
[ten networks in one](hinton2015_speech.md); the teacher is one such network of
{POINTS["teacher"]:,} points. A student of two hidden layers of {STUDENT[0]} units learns
from labels or from soft targets alone, from {POINTS["student"]:,} other points, with Adam
and batches of {BATCH}; each row's gradients are those of its own targets at its own
weights. The three rows start from the same weights. Nothing was tuned."""


def split() -> tuple:
    """Return the points of the teacher, and other ones for the student."""
    samples = noisy_classes.points("train", sum(POINTS.values()))
    return samples[: POINTS["teacher"]], samples[POINTS["teacher"] :]


def trained_teacher(samples) -> keras.Model:
    """Return a network trained on labels."""
    model = noisy_classes.net(TEACHER, 0)
    fit(model, samples, BATCH, EPOCHS["teacher"], 0)
    return model


def variation(model: keras.Model, inputs: np.ndarray, slopes: np.ndarray) -> float:
    """Return the variance of the gradient between cases over the squared mean gradient.

    Args:
        model: perceptron of ReLU layers.
        inputs: `(N, d)`.
        slopes: gradients of each case's loss by its logits, `(N, K)`.
    """
    layers = [x for x in model.layers if isinstance(x, keras.layers.Dense)]
    weights = [keras.ops.convert_to_numpy(x.kernel) for x in layers]
    biases = [keras.ops.convert_to_numpy(x.bias) for x in layers]
    before = [inputs]
    for kernel, bias in zip(weights[:-1], biases[:-1], strict=True):
        before.append(np.maximum(before[-1] @ kernel + bias, 0.0))
    squares, mean = 0.0, 0.0
    for x, kernel in zip(reversed(before), reversed(weights), strict=True):
        x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], -1)
        # A case's gradient of a layer is the outer product of its input and its slope.
        squares += ((x**2).sum(-1) * (slopes**2).sum(-1)).mean()
        mean += ((x.T @ slopes / len(x)) ** 2).sum()
        slopes = slopes @ kernel.T * (x[:, :-1] > 0)
    return float(squares / mean - 1.0)


def slopes_of(logits, targets, temperature: float | None) -> np.ndarray:
    """Return the gradients of the loss by the logits; `targets`: labels or logits."""
    if temperature is None:
        return special.softmax(logits, -1) - np.eye(logits.shape[-1])[targets]
    p, q = (special.softmax(x / temperature, -1) for x in (targets, logits))
    return temperature * (q - p)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train a student and measure it at three times."""
    of_teacher, samples = split()
    teacher = stored(scratch / "teacher.keras", lambda: trained_teacher(of_teacher))
    student = noisy_classes.net(STUDENT, 1000 + seed)
    temperature, found = ROWS[row], []
    targets = samples.labels
    if temperature:
        targets = logits_of(teacher, samples)

    def measure():
        logits = logits_of(student, samples)
        slopes = slopes_of(logits, targets, temperature)
        found.append(variation(student, samples.images, slopes))

    model = student
    if temperature:
        soft = kd.Term(kd.losses.SoftTarget(temperature))
        model = kd.Distiller(student, teacher, terms=[soft], label_weight=0.0)
    measure()
    for epochs in (1, EPOCHS["student"] - 1):
        fit(model, samples, BATCH, epochs, seed, decays=False)
        measure()
    return dict(zip(MEASURES, found, strict=True))


PROTOCOL = Protocol(
    name="hinton2015_gradients",
    title="Hinton 2015: variance of the gradient",
    about=ABOUT,
    rows=tuple(ROWS),
    train=train,
    claims=tuple(
        Claim(
            "Gradients of soft targets vary less between training cases than those "
            f"of labels, {measure}",
            *("soft targets, T = 4", "labels", measure),
            larger=False,
        )
        for measure in MEASURES
    ),
    settings=SETTINGS,
)
