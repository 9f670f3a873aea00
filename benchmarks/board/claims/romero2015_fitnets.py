"""Romero 2015, FitNets: hints before soft targets, for a thin and deep student."""

import keras
from pairs import BATCH, Net
from training import cached_teacher, fast_teacher

import keras_distill as kd
from claims import cifar
from claims.protocol import Claim, Protocol
from claims.training import accuracy
from keras_distill import losses

IMAGES, TEST, FIRST, SECOND = 10_000, 10_000, 5, 15
TEMPERATURE, LARGEST, SMALLEST = 3.0, 4.0, 1.0
STUDENT = Net("thin", "conv_net", {"filters": (8, 16, 32), "convs_per_stack": 3})
SETTINGS = {
    "images": IMAGES,
    "epochs": [FIRST, SECOND],
    "teacher": "resnet20",
    "student": STUDENT.settings,
    "temperature": TEMPERATURE,
    "weights": [LARGEST, SMALLEST],
}
SMOKE = {"IMAGES": 128, "TEST": 128, "FIRST": 1, "SECOND": 1}
ABOUT = f"""Small-scale stand-in: a JPEG copy of CIFAR-10. The student is thin and deep, nine
convolutions of 8, 16 and 32 filters without shortcuts (the paper's are plain networks too);
it has {IMAGES:,} images. The teacher is ResNet-20, trained on all (the paper: a maxout
network of five layers). All rows have {FIRST + SECOND} epochs in total. Hints are the
paper's first stage, without labels: the end of the teacher's second stage for that of the
student's, {FIRST} epochs of Adam. FitNet goes on for {SECOND} epochs as in the paper, on
labels and soft targets (T = {TEMPERATURE:g}) whose weight falls from {LARGEST:g} to
{SMALLEST:g}; KD is this second stage alone, for all epochs. {cifar.HOW} Test accuracy in %.
"""


def soft(epochs: int, images: int) -> list[kd.Term]:
    """Return the paper's soft targets, whose weight falls."""
    steps = epochs * (images // BATCH)
    weight = keras.optimizers.schedules.PolynomialDecay(LARGEST, steps, SMALLEST)
    return [kd.Term(losses.SoftTarget(TEMPERATURE), weight=weight)]


def trained(row: str, seed: int, samples, scratch) -> keras.Model:
    """Return a student trained by a row."""
    student, epochs = STUDENT.build(1000 + seed), FIRST + SECOND
    if row == "alone":
        return cifar.fit(student, samples, epochs, seed)
    teacher = cifar.board_teacher("resnet20")
    if row == "KD":
        cached = cached_teacher(teacher, samples, scratch / "logits")
        terms = soft(epochs, len(samples))
        return cifar.distill(student, cached, terms, samples, epochs, seed)
    hint = kd.Term(losses.Hint(), "stack2", "stack2")
    return cifar.distill_first(
        student,
        fast_teacher(teacher, samples),
        [hint],
        samples,
        (FIRST, SECOND),
        seed,
        then=soft(SECOND, len(samples)) if row == "FitNet" else (),
    )


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = cifar.load(IMAGES, TEST)
    student = trained(row, seed, data.train, scratch)
    return {"accuracy": accuracy(student, data.test)}


PROTOCOL = Protocol(
    name="romero2015_fitnets",
    title="Romero 2015: FitNets",
    about=ABOUT,
    rows=("alone", "hints, then labels", "KD", "FitNet"),
    train=train,
    claims=(
        Claim(
            "Hints make a thin, deep student better",
            *("hints, then labels", "alone", "accuracy"),
        ),
        Claim(
            "Hints and then soft targets are better than soft targets alone",
            *("FitNet", "KD", "accuracy"),
        ),
        Claim(
            "Hints and then soft targets are better than labels alone",
            *("FitNet", "alone", "accuracy"),
        ),
    ),
    settings=SETTINGS,
)
