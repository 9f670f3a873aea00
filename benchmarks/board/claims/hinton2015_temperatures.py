"""Hinton 2015, section 3: the best temperature for students of 30 units."""

import dataclasses

import hinton2015_mnist as example
import keras

import keras_distill as kd
from claims.protocol import Claim, Protocol
from claims.training import fit, fit_to_logits, logits_of, stored

UNITS, BATCH, RATE = 30, 128, 2e-3
IMAGES, EPOCHS, LABEL_WEIGHT = 60_000, 100, example.LABEL_WEIGHT
TEACHER_EPOCHS = example.EPOCHS["teacher"]
TEMPERATURES = {f"T = {t:g}": t for t in (1.0, 2.5, 4.0, 8.0, 20.0)}
SETTINGS = {
    "units": UNITS,
    "batch": BATCH,
    "rate": RATE,
    "epochs": EPOCHS,
    "label_weight": LABEL_WEIGHT,
    "teacher_epochs": TEACHER_EPOCHS,
}
SMOKE = {"IMAGES": 600, "EPOCHS": 1, "TEACHER_EPOCHS": 1}
ABOUT = f"""The paper's experiment: with two hidden layers of {UNITS} units "temperatures in the
range 2.5 to 4 worked significantly better than higher or lower temperatures". MNIST, all
images; one teacher of two layers of 1,200 units, trained as in the
[main experiment](hinton2015_mnist.md), for all seeds. All students have the same steps:
{EPOCHS} epochs in batches of {BATCH}, Adam with a rate of {RATE:g} that falls to 0 by a
cosine; soft targets have a weight of {1 - LABEL_WEIGHT:g}, and labels {LABEL_WEIGHT:g}.
Errors on the 10,000 test images. An earlier comparison, on the page of the main experiment,
gave the student of labels fewer steps than the others, had 10 epochs and one seed, and
found T = 1 best."""


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = kd.data.load("mnist")
    data = dataclasses.replace(data, train=data.train[:IMAGES])
    samples = data.train
    teacher = stored(
        scratch / "teacher.keras", lambda: example.new_teacher(data, 0, TEACHER_EPOCHS)
    )
    if row == "teacher":
        return {"errors": example.errors(teacher, data.test)[0]}
    keras.utils.set_random_seed(1000 + seed)
    student = kd.models.mlp(data.input_shape, 10, units=(UNITS, UNITS))
    if row == "labels":
        fit(student, samples, BATCH, EPOCHS, seed, rate=RATE)
    else:
        fit_to_logits(
            student,
            samples,
            logits_of(teacher, samples),
            kd.losses.SoftTarget(TEMPERATURES[row]),
            *(BATCH, EPOCHS, seed),
            rate=RATE,
            weight=1 - LABEL_WEIGHT,
            label_weight=LABEL_WEIGHT,
        )
    return {"errors": example.errors(student, data.test)[0]}


PROTOCOL = Protocol(
    name="hinton2015_temperatures",
    title="Hinton 2015: temperature and size of the student",
    about=ABOUT,
    rows=("teacher", "labels", *TEMPERATURES),
    train=train,
    claims=tuple(
        Claim(
            f"For a student of {UNITS} units {better} is better than {worse}",
            *(better, worse, "errors"),
            larger=False,
        )
        for better, worse in (
            ("T = 2.5", "T = 1"),
            ("T = 4", "T = 1"),
            ("T = 2.5", "T = 8"),
            ("T = 4", "T = 20"),
        )
    ),
    settings=SETTINGS,
    seeds=5,
    digits=1,
)
