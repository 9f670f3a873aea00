"""Hinton 2015, section 3: MNIST, a student of 800 units a layer."""

import dataclasses

import hinton2015_mnist as example

import keras_distill as kd
from claims.protocol import Claim, Protocol
from claims.training import logits_of, stored

IMAGES, EPOCHS = 60_000, example.EPOCHS
SETTINGS = {
    "epochs": EPOCHS,
    "rates": example.RATES,
    "temperature": example.TEMPERATURE,
    "label_weight": example.LABEL_WEIGHT,
}
SMOKE = {"IMAGES": 600, "EPOCHS": dict.fromkeys(EPOCHS, 1)}
STUDENTS = {
    "labels": (None, "alone"),
    f"T = {example.TEMPERATURE:g}": (example.TEMPERATURE, "distilled"),
}
ABOUT = """The paper's experiment on the original MNIST, by the functions and settings of
`examples/hinton2015_mnist.py`: a teacher of two layers of 1,200 units with dropout, a norm
constraint and jittered images; students of two layers of 800 units without any. Each seed
has a teacher of its own. Errors on the 10,000 test images, of the paper those of one run."""


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row; a training that is killed goes on where it was."""
    data = kd.data.load("mnist")
    data = dataclasses.replace(data, train=data.train[:IMAGES])
    backup = str(scratch / f"backup_{row}_{seed}".replace(" ", "_"))
    if row == "labels":
        teacher, logits = None, None
    else:
        teacher = stored(
            scratch / f"teacher_{seed}.keras",
            lambda: example.new_teacher(
                data, seed, EPOCHS["teacher"], f"{scratch}/backup_{seed}"
            ),
        )
        logits = logits_of(teacher, data.train)
    if row == "teacher":
        return {"errors": example.errors(teacher, data.test)[0]}
    temperature, kind = STUDENTS[row]
    student = example.train_student(
        *(data, data.train, logits, 800, temperature, seed, EPOCHS[kind], backup)
    )
    return {"errors": example.errors(student, data.test)[0]}


PROTOCOL = Protocol(
    name="hinton2015_mnist",
    title="Hinton 2015: MNIST",
    about=ABOUT,
    rows=("teacher", *STUDENTS),
    train=train,
    claims=(
        Claim(
            "A student that learns soft targets makes fewer errors than one on labels",
            *("T = 20", "labels", "errors"),
            larger=False,
        ),
    ),
    settings=SETTINGS,
    paper={"teacher": "67", "labels": "146", "T = 20": "74"},
    seeds=5,
    digits=1,
)
