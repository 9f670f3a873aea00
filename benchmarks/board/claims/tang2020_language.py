"""Tang 2020, table 3: the teacher's top k characters, for language models."""

import functools
import math

import keras
import numpy as np
import tang2020_partial_kd as example

import keras_distill as kd
from claims.partial_targets import distill, fit_quickly, term
from claims.protocol import Claim, Protocol
from claims.training import cross_entropy, stored

CHARACTERS, EPOCHS, BATCH, RATE = 1_000_000, 20, 64, 4e-3
TEACHER, STUDENT, TEMPERATURE = 192, 48, 1.5
TOPS = (5, 10, 20, 30)
LENGTH = example.LANGUAGE["length"]
SETTINGS = {
    "characters": CHARACTERS,
    "epochs": EPOCHS,
    "batch": BATCH,
    "rate": RATE,
    "units": [TEACHER, STUDENT],
    "temperature": TEMPERATURE,
    "tops": list(TOPS),
}
SMOKE = {"CHARACTERS": 4096, "EPOCHS": 1, "TOPS": (5,)}
ABOUT = f"""Small-scale stand-in for Penn Treebank: {CHARACTERS:,} characters of
tiny_shakespeare, 65 different ones, in windows of {LENGTH}; LSTMs of {TEACHER} and {STUDENT}
units, {EPOCHS} epochs of Adam in batches of {BATCH}, with a rate of {RATE:g} that falls to 0
by a cosine. T = {TEMPERATURE:g}, and a weight of 0.7 beside the labels. `KD-topk` is the
student of the k, out of {", ".join(map(str, TOPS))}, that is best on the validation text.
Bits per character on the test text, last epoch. The paper's figures: perplexity of words."""


@functools.cache
def load(characters: int):
    """Return training, validation and test windows, and the number of characters."""
    text = kd.data.load_characters()
    windows = [text.windows(x, LENGTH) for x in ("train", "validation", "test")]
    count = characters // LENGTH
    return [(x[:count], y[:count]) for x, y in windows], len(text.alphabet)


def net(seed: int, units: int) -> keras.Model:
    """Return a network before it is trained."""
    keras.utils.set_random_seed(seed)
    return example.language_model(load(CHARACTERS)[1], units, f"lstm{units}")


def from_labels(seed: int, units: int) -> keras.Model:
    """Return a network trained on labels."""
    model = net(seed, units)
    fit_quickly(model, *load(CHARACTERS)[0][0], BATCH, EPOCHS, RATE)
    return model


def teacher_of(scratch, seed: int) -> keras.Model:
    """Return the teacher of a seed."""
    return stored(scratch / f"teacher_{seed}.keras", lambda: from_labels(seed, TEACHER))


def distilled(scratch, seed: int, k: int | None) -> keras.Model:
    """Return the student of a seed that learns the top k characters, None for all."""

    def make():
        x, y = load(CHARACTERS)[0][0]
        logits = teacher_of(scratch, seed).predict(x, 256, verbose=0)
        settings = {"KD": TEMPERATURE, "KD-topk": k or 1}
        classes = np.eye(logits.shape[-1])
        of_method = term(
            "KD-topk" if k else "KD", settings, classes, range(len(classes))
        )
        return distill(
            *(net(1000 + seed, STUDENT), x, y, logits.astype("float16"), of_method),
            batch=BATCH,
            epochs=EPOCHS,
            rate=RATE,
        )

    return stored(scratch / f"student_{k}_{seed}.keras", make)


def bits(model, split: int) -> float:
    """Return the bits per character of a split."""
    model.compile("sgd", cross_entropy())
    x, y = load(CHARACTERS)[0][split]
    return model.evaluate(x, y, 64, verbose=0) / math.log(2)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    if row == "teacher":
        model = teacher_of(scratch, seed)
    elif row == "student":
        model = from_labels(1000 + seed, STUDENT)
    elif row == "KD-topk":
        students = [distilled(scratch, seed, k) for k in TOPS]
        model = min(students, key=lambda student: bits(student, 1))
    else:
        k = int(row.split()[-1]) if row.startswith("k =") else None
        model = distilled(scratch, seed, k)
    return {"bits": bits(model, 2)}


PROTOCOL = Protocol(
    name="tang2020_language",
    title="Tang 2020: language models",
    about=ABOUT,
    rows=("teacher", "student", "KD", *(f"k = {k}" for k in TOPS), "KD-topk"),
    train=train,
    claims=(
        Claim("Distillation helps", "KD", "student", "bits", larger=False),
        Claim(
            "The teacher's top k are better than all",
            *("KD-topk", "KD", "bits"),
            larger=False,
        ),
    ),
    settings=SETTINGS,
    paper={"teacher": "58.58", "student": "61.55", "KD": "61.33", "KD-topk": "60.85"},
    digits=3,
)
