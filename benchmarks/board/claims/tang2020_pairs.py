"""Tang 2020, section 5.2 to 5.4 and figures: 100 classes of known super-classes."""

import functools

import keras
import numpy as np

import keras_distill as kd
from claims.class_relations import GROUPS, blocks, measure_teacher, pairs, plot_over_k
from claims.partial_targets import SOFT_WEIGHT, chosen, distill, fit_quickly, term
from claims.protocol import Claim, Protocol
from claims.training import accuracy, stored

IMAGES, HELD_OUT, TEST, EPOCHS = 10_000, 5_000, 10_000, 30
BATCH, RATE, NOISE = 200, 3e-3, 0.3
TEACHER, DROPOUT, STUDENT = (256, 256), 0.2, (32,)
HOT, TOP, SMOOTHING, CHOICE_SEED = 4.0, 25, 0.1, 9
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
CANDIDATES = {
    "LS": (0.05, 0.1, 0.2, 0.4),
    "KD": TEMPERATURES,
    "KD-pt": TEMPERATURES,
    "KD-sim": (0.1, 0.2, 0.3, 0.5),
    "KD-rel": (0.1, 0.3, 0.5, 0.7),
    "KD-pt+sim": (0.1, 0.3, 0.5, 0.7),
    "KD-topk": (5, 10, 25, 50),
}
METHODS, TOPS = tuple(CANDIDATES), {f"k = {k}": k for k in (2, 5, 10, 25, 50)}
HOT_CLASSES, SMOOTHED = f"classes, T = {HOT:g}", " of smoothed teacher"
# Temperature and k of the predictions that are correlated.
CLASSES = {
    "classes, T = 1": (1.0,),
    HOT_CLASSES: (HOT,),
    f"classes, top {TOP}": (HOT, TOP),
    "classes, weights": (None,),
    "classes, smoothed labels": (HOT,),
}
GRADIENTS = ("gradients, first epoch", "gradients, last epoch")
FROM_SMOOTHED = ("KD", "KD-pt", "KD-sim")
SETTINGS = {
    "images": IMAGES,
    "noise": NOISE,
    "teacher": [*TEACHER, DROPOUT],
    "student": list(STUDENT),
    "batch": BATCH,
    "epochs": EPOCHS,
    "rate": RATE,
    "candidates": {name: list(values) for name, values in CANDIDATES.items()},
}
SMOKE = {
    "IMAGES": 400,
    "HELD_OUT": 200,
    "TEST": 1000,
    "EPOCHS": 1,
    "CANDIDATES": {name: values[:1] for name, values in CANDIDATES.items()},
}
ABOUT = f"""Small-scale stand-in for CIFAR-100: pairs of MNIST digits side by side, at half
the resolution; 100 classes, in 10 super-classes by the first digit. The second digit has
noise (deviation {NOISE:g}), so that classes of a super-class are those that are confused.
{IMAGES:,} training pairs, {TEST:,} test pairs of test digits. The teacher is a perceptron of
two hidden layers of {TEACHER[0]} units with dropout, the student one of {STUDENT[0]} units;
{EPOCHS} epochs of Adam, with a rate of {RATE:g} that falls to 0 by a cosine.

Every method has four values to choose from, and takes the best on {HELD_OUT:,} pairs of
digits that no other pairs have, with a seed of its own: the temperature of KD, KD-pt and
KD-sim, the weight of LS and KD-rel, the share of KD-pt+sim, k of KD-topk; else the weight of
soft targets is 0.7. Students of a teacher of labels smoothed by {SMOOTHING:g} have the same
settings. `blocks` is how much more classes of a super-class correlate than others
(`kd.analysis.class_correlation`, test pairs; 1 at most); `confidence` is the mean, and
`deviation` the standard deviation, of the teacher's probability of the label at
T = {HOT:g} on training pairs; `rescaling` is the correlation of that probability with the
ratio of the gradients of distillation and labels. The sizes were chosen on held-out pairs;
a first teacher, of 512 units and 74.9 % on test pairs, took too long. The paper's figures
are for CIFAR-100."""


@functools.cache
def load(seed: int, images: int) -> dict[str, kd.data.Samples]:
    """Return the pairs of a seed; those held out share no digit with the others."""
    mnist = kd.data.load("mnist")
    return {
        "train": pairs(mnist.train[:50_000], images, seed, NOISE),
        "held out": pairs(mnist.train[50_000:], HELD_OUT, seed, NOISE),
        "test": pairs(mnist.test, TEST, seed, NOISE),
    }


def net(seed: int, units, dropout: float = 0.0) -> keras.Model:
    """Return a network before it is trained."""
    keras.utils.set_random_seed(seed)
    return kd.models.mlp((14, 28, 1), 100, units=units, dropout=dropout)


def training(epochs: int | None = None) -> dict:
    """Return the arguments of a training."""
    return {
        "batch": BATCH,
        "epochs": EPOCHS if epochs is None else epochs,
        "rate": RATE,
    }


def from_labels(samples, model, epochs: int | None = None) -> keras.Model:
    """Return a network trained on labels."""
    fit_quickly(model, samples.images, samples.labels, **training(epochs))
    return model


def teacher_of(scratch, seed: int, smoothed: bool = False) -> keras.Model:
    """Return the teacher of a seed, of labels or of smoothed ones."""
    samples = load(seed, IMAGES)["train"]

    def make():
        model = net(seed, TEACHER, DROPOUT)
        if not smoothed:
            return from_labels(samples, model)
        smooth = term("LS", {"LS": SMOOTHING}, np.eye(100), GROUPS)
        even = np.zeros((len(samples), 100), "float32")
        return distill(
            model, samples.images, samples.labels, even, smooth, **training()
        )

    return stored(scratch / f"teacher_{seed}_{smoothed}.keras", make)


def student_of(teacher, method: str, settings, seed: int, epochs=None) -> keras.Model:
    """Return a method's student."""
    samples = load(seed, IMAGES)["train"]
    logits = teacher.predict(samples.images, 1000, verbose=0)
    vectors = keras.ops.convert_to_numpy(teacher.get_layer("logits").kernel).T
    of_method = term(method, settings, vectors, GROUPS)
    student = net(1000 + seed, STUDENT)
    return distill(
        student, samples.images, samples.labels, logits, of_method, **training(epochs)
    )


def chosen_for(method: str, scratch) -> dict[str, float]:
    """Return a method's settings, chosen on pairs that are held out."""

    def score(name, settings):
        teacher = teacher_of(scratch, CHOICE_SEED)
        student = student_of(teacher, name, settings, CHOICE_SEED)
        return accuracy(student, load(CHOICE_SEED, IMAGES)["held out"])

    return chosen(method, CANDIDATES, score, scratch / "chosen.json")


def gradients(row: str, teacher, seed: int) -> float:
    """Return how the gradients of a student are rescaled by the confidence."""
    epochs = 1 if "first" in row else EPOCHS
    student = student_of(teacher, "KD", {"KD": HOT}, seed, epochs)
    found = kd.analysis.gradient_rescaling(
        *(student, teacher, load(seed, IMAGES)["train"]),
        temperature=HOT,
        soft_weight=SOFT_WEIGHT,
    )
    return found.correlation


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = load(seed, IMAGES)
    if row == "student":
        model = from_labels(data["train"], net(1000 + seed, STUDENT))
        return {"accuracy": accuracy(model, data["test"])}
    teacher = teacher_of(scratch, seed, "smoothed" in row)
    if row in CLASSES:
        return {"blocks": blocks(teacher, data["test"], *CLASSES[row])}
    if row in GRADIENTS:
        return {"rescaling": gradients(row, teacher, seed)}
    if row in ("teacher", "smoothed teacher"):
        return measure_teacher(teacher, data["train"], data["test"], HOT)
    method = row.partition(" of ")[0]
    settings = dict(chosen_for("KD" if method in TOPS else method, scratch))
    if method in TOPS:
        method, settings["KD-topk"] = "KD-topk", TOPS[method]
    student = student_of(teacher, method, settings, seed)
    return {"accuracy": accuracy(student, data["test"]), "setting": settings[method]}


CLAIMS = (
    ("Label smoothing improves the student", "LS", "student"),
    ("Distillation improves it more", "KD", "LS"),
    ("The confidence alone is better than label smoothing", "KD-pt", "LS"),
    ("So are class relations alone", "KD-sim", "LS"),
    ("Known super-classes improve the student", "KD-rel", "student"),
    ("Both together are better than the confidence", "KD-pt+sim", "KD-pt"),
    ("Both together are better than class relations", "KD-pt+sim", "KD-sim"),
    ("The teacher's top k classes are better than all", "KD-topk", "KD"),
    *(
        (f"A teacher of smoothed labels is worse for {name}", name, name + SMOOTHED)
        for name in FROM_SMOOTHED
    ),
)
FIGURES = (
    Claim(
        "A high temperature shows super-classes (figure 1)",
        *(HOT_CLASSES, "classes, T = 1", "blocks"),
    ),
    Claim(
        "So do the top k alone (figure 1)",
        *(f"classes, top {TOP}", HOT_CLASSES, "blocks"),
        no_loss=True,
    ),
    Claim(
        "Smoothed labels destroy class relations (figure 4)",
        *(HOT_CLASSES, "classes, smoothed labels", "blocks"),
    ),
    Claim(
        "They make the confidence even (figure 5)",
        *("teacher", "smoothed teacher", "deviation"),
    ),
    Claim(
        "Gradients are rescaled by the confidence, more so at first (figure 2)",
        *(*GRADIENTS, "rescaling"),
    ),
)

PROTOCOL = Protocol(
    name="tang2020_pairs",
    title="Tang 2020: pairs of digits",
    about=ABOUT,
    rows=(
        *("teacher", "student", *METHODS, *TOPS, "smoothed teacher"),
        *(name + SMOOTHED for name in FROM_SMOOTHED),
        *(*CLASSES, *GRADIENTS),
    ),
    train=train,
    claims=(*(Claim(*claim, "accuracy") for claim in CLAIMS), *FIGURES),
    settings=SETTINGS,
    plot=plot_over_k,
    paper={
        "teacher": "75.68",
        "student": "72.51",
        "LS": "73.87",
        "KD": "75.94",
        "KD-pt": "75.08",
        "KD-sim": "74.30",
        "KD-rel": "74.14",
        "KD-pt+sim": "75.24",
        "KD-topk": "76.17",
        "smoothed teacher": "76.69",
        f"KD{SMOOTHED}": "75.02",
        f"KD-pt{SMOOTHED}": "74.13",
        f"KD-sim{SMOOTHED}": "74.01",
    },
)
