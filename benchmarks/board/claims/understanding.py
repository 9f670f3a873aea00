"""Müller 2019: calibration under label smoothing, and students of smoothed teachers."""

import keras

import keras_distill as kd
from claims.protocol import Claim, Protocol
from claims.training import accuracy, fit, fit_to_logits, logits_of, stored

TEACHER, STUDENT, DROPOUT, BATCH = (400, 400), (100, 100), 0.5, 100
IMAGES, EPOCHS = 3_000, {"teacher": 40, "student": 30}
SMOOTHING, TEMPERATURE, LABEL_WEIGHT = 0.1, 4.0, 0.1
SETTINGS = {
    "teacher": TEACHER,
    "dropout": DROPOUT,
    "student": STUDENT,
    "images": IMAGES,
    "batch": BATCH,
    "epochs": EPOCHS,
    "smoothing": SMOOTHING,
    "temperature": TEMPERATURE,
    "label_weight": LABEL_WEIGHT,
}
SMOKE = {"IMAGES": 200, "EPOCHS": {"teacher": 1, "student": 1}}
ROWS = (
    "teacher on labels",
    "teacher on smoothed labels",
    "student on labels",
    "student on smoothed labels",
    "student of the teacher on labels",
    "student of the teacher on smoothed labels",
)
ABOUT = f"""Müller et al. 2019, "When does label smoothing help?": smoothed labels calibrate a
network, and make it a worse teacher. Small-scale stand-in: the first {IMAGES:,} images of
MNIST; a perceptron of two layers of {TEACHER[0]} units with dropout of {DROPOUT:g} teaches
one of two layers of {STUDENT[0]} (T = {TEMPERATURE:g}, labels with a weight of
{LABEL_WEIGHT:g}), {EPOCHS["teacher"]} and {EPOCHS["student"]} epochs of Adam with a rate of
1e-3 that falls to 0 by a cosine; labels are smoothed by {SMOOTHING:g}. Accuracy in %, and
the expected calibration error in % (15 bins) on the 10,000 test images. Nothing was
tuned."""


def net(units, dropout: float, seed: int) -> keras.Model:
    """Return a perceptron before it is trained."""
    keras.utils.set_random_seed(seed)
    return kd.models.mlp((28, 28, 1), 10, units=units, dropout=dropout)


def fit_to_labels(model, samples, smoothed: bool, epochs: int, seed: int):
    """Train a model on labels, and return it."""
    if not smoothed:
        fit(model, samples, BATCH, epochs, seed)
        return model
    loss = kd.losses.SoftTarget(1.0, target=kd.targets.Uniform())
    # The target is uniform: what the teacher predicts does not matter.
    none = keras.ops.zeros((len(samples), 10))
    weights = {"weight": SMOOTHING, "label_weight": 1.0 - SMOOTHING}
    fit_to_logits(model, samples, none, loss, BATCH, epochs, seed, **weights)
    return model


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = kd.data.load("mnist")
    samples, smoothed = data.train[:IMAGES], row.endswith("smoothed labels")
    student = net(STUDENT, 0.0, 1000 + seed)
    if "teacher" in row:
        teacher = stored(
            scratch / f"teacher_{'smoothed_' * smoothed}{seed}.keras",
            lambda: fit_to_labels(
                *(net(TEACHER, DROPOUT, seed), samples, smoothed),
                *(EPOCHS["teacher"], seed),
            ),
        )
    if row.startswith("teacher"):
        student = teacher
    elif row.startswith("student on"):
        fit_to_labels(student, samples, smoothed, EPOCHS["student"], seed)
    else:
        fit_to_logits(
            student,
            samples,
            logits_of(teacher, samples),
            kd.losses.SoftTarget(TEMPERATURE),
            *(BATCH, EPOCHS["student"], seed),
            weight=1.0 - LABEL_WEIGHT,
            label_weight=LABEL_WEIGHT,
        )
    return {
        "accuracy": accuracy(student, data.test),
        "calibration error": 100 * kd.analysis.calibration(student, data.test).error,
    }


PROTOCOL = Protocol(
    name="understanding",
    title="Müller 2019: label smoothing",
    about=ABOUT,
    rows=ROWS,
    train=train,
    claims=(
        Claim(
            "Smoothed labels calibrate a teacher",
            *("teacher on smoothed labels", "teacher on labels", "calibration error"),
            larger=False,
        ),
        Claim(
            "Smoothed labels calibrate a student",
            *("student on smoothed labels", "student on labels", "calibration error"),
            larger=False,
        ),
        Claim(
            "A teacher on labels has a better student than one on smoothed labels",
            "student of the teacher on labels",
            "student of the teacher on smoothed labels",
            "accuracy",
        ),
        Claim(
            "A distilled student is better calibrated than one on labels",
            "student of the teacher on labels",
            "student on labels",
            "calibration error",
            larger=False,
        ),
    ),
    settings=SETTINGS,
)
