"""Tang 2020, section 5.1: parts of distillation, on classes of controlled similarity."""

import functools

import keras
import tang2020_partial_kd as example

import keras_distill as kd
from claims.partial_targets import chosen, distill, fit_quickly, term
from claims.protocol import Claim, Protocol
from claims.training import accuracy, stored

SIMILARITIES = (0.0, 0.5, 0.9)
SIZES = {"features": 30, "classes": 20, "super_classes": 5}
POINTS, HELD_OUT, TEST = 200_000, 10_000, 50_000
BATCH, EPOCHS, RATE = 128, 26, 3e-3
TEACHER, STUDENT, CHOICE_SEED, CHOICE_SIMILARITY = 256, 64, 9, 0.5
TEMPERATURES = (1.0, 2.0, 3.0, 5.0)
CANDIDATES = {
    "KD": TEMPERATURES,
    "KD-pt": TEMPERATURES,
    "KD-sim": (0.05, 0.1, 0.2, 0.3),
    "KD-topk": (2, 3, 5, 10),
}
SETTINGS = {
    "sizes": SIZES,
    "points": POINTS,
    "units": [TEACHER, STUDENT],
    "batch": BATCH,
    "epochs": EPOCHS,
    "rate": RATE,
    "candidates": {name: list(values) for name, values in CANDIDATES.items()},
}
SMOKE = {
    "POINTS": 512,
    "HELD_OUT": 256,
    "TEST": 256,
    "EPOCHS": 1,
    "CANDIDATES": {name: values[:1] for name, values in CANDIDATES.items()},
}
ABOUT = f"""Small-scale stand-in: `kd.data.RelatedClasses` of difficulty 2 with
{SIZES["features"]} features, {SIZES["classes"]} classes in {SIZES["super_classes"]}
super-classes and {POINTS:,} points, instead of 500, 50 in 10 and 500,000; the paper does not
state its three similarities, here 0, 0.5 and 0.9. Residual tanh nets of {TEACHER} and
{STUDENT} units, {EPOCHS * -(-POINTS // BATCH):,} steps of {BATCH} points by Adam, with a rate
of {RATE:g} that falls to 0 by a cosine, instead of 3 million.

The weight of soft targets is 0.7. Every method takes the best of four values of its setting
on {HELD_OUT:,} validation points, in trainings on classes and points of a seed of their own
at a similarity of {CHOICE_SIMILARITY:g}: the temperature of KD and KD-pt, that of the
similarities of KD-sim, k of KD-topk. The sizes were chosen on such points, too, so that
labels leave a gap between the two nets, and before any cell was trained. What is reported is
the accuracy in % on {TEST:,} test points, last epoch; `change` is that at the highest
similarity less that at the lowest."""


@functools.lru_cache(2)
def load(similarity: float, seed: int) -> tuple:
    """Return the classes of a seed, and their training, validation and test points."""
    data = kd.data.RelatedClasses(similarity, 2, **SIZES, seed=seed)
    counts = {"train": POINTS, "validation": HELD_OUT, "test": TEST}
    return data, {split: data.samples(split, count) for split, count in counts.items()}


def from_labels(similarity: float, seed: int, units: int) -> keras.Model:
    """Return a network trained on labels."""
    data, points = load(similarity, seed)
    keras.utils.set_random_seed(1000 * (units == STUDENT) + seed)
    model = example.net(data, units, f"net{units}")
    train = points["train"]
    fit_quickly(model, train.images, train.labels, BATCH, EPOCHS, RATE, True)
    return model


def teacher_of(scratch, similarity: float, seed: int) -> keras.Model:
    """Return the teacher of a similarity and a seed."""
    return stored(
        scratch / f"teacher_{similarity}_{seed}.keras",
        lambda: from_labels(similarity, seed, TEACHER),
    )


def student_of(teacher, method: str, settings, similarity, seed) -> keras.Model:
    """Return a method's student."""
    data, points = load(similarity, seed)
    x, y = points["train"].images, points["train"].labels
    logits = teacher.predict(x, 10_000, verbose=0)
    vectors = keras.ops.convert_to_numpy(teacher.get_layer("logits").kernel).T
    groups = [k for k, group in enumerate(data.groups) for _ in group]
    of_method = term(method, settings, vectors, groups)
    keras.utils.set_random_seed(1000 + seed)
    student = example.net(data, STUDENT, "student")
    training = {"batch": BATCH, "epochs": EPOCHS, "rate": RATE, "jit_compile": True}
    return distill(student, x, y, logits, of_method, **training)


def chosen_for(method: str, scratch) -> dict[str, float]:
    """Return a method's settings, chosen on validation points."""

    def score(name, settings):
        where = CHOICE_SIMILARITY, CHOICE_SEED
        student = student_of(teacher_of(scratch, *where), name, settings, *where)
        return accuracy(student, load(*where)[1]["validation"])

    return chosen(method, CANDIDATES, score, scratch / "chosen.json")


def trained(row: str, similarity: float, seed: int, scratch) -> keras.Model:
    """Return a row's network."""
    if row == "student":
        return from_labels(similarity, seed, STUDENT)
    teacher = teacher_of(scratch, similarity, seed)
    if row == "teacher":
        return teacher
    settings = chosen_for(row, scratch)
    return student_of(teacher, row, settings, similarity, seed)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row at each similarity."""
    found = {
        at(similarity): accuracy(
            trained(row, similarity, seed, scratch), load(similarity, seed)[1]["test"]
        )
        for similarity in SIMILARITIES
    }
    first, *_, last = found.values()
    found["change"] = last - first
    if row in CANDIDATES:
        found["setting"] = chosen_for(row, scratch)[row]
    return found


def at(similarity: float) -> str:
    """Return the name of the accuracy at a similarity."""
    return f"accuracy, {similarity}"


CLAIMS = (
    *(
        Claim(f"Distillation helps, at a similarity of {x}", "KD", "student", at(x))
        for x in SIMILARITIES
    ),
    *(
        Claim(f"So does the confidence alone, at {x}", "KD-pt", "student", at(x))
        for x in SIMILARITIES
    ),
    *(
        Claim(f"So do class relations alone, at {x}", "KD-sim", "student", at(x))
        for x in SIMILARITIES
    ),
    Claim(
        "The confidence alone is no worse than all, for unrelated classes",
        *("KD-pt", "KD", at(SIMILARITIES[0])),
        no_loss=True,
    ),
    Claim(
        "For similar classes, class relations are better than the confidence",
        *("KD-sim", "KD-pt", at(SIMILARITIES[-1])),
    ),
    Claim(
        "Class relations gain on the confidence with the similarity",
        *("KD-sim", "KD-pt", "change"),
    ),
    *(
        Claim(
            f"The top k classes are no worse than all, at {x}",
            *("KD-topk", "KD", at(x)),
            no_loss=True,
        )
        for x in SIMILARITIES
    ),
)
PAPER = {
    "teacher": "54.82, 60.60, 61.53",
    "student": "38.45, 42.81, 47.10",
    "KD": "55.97, 56.95, 57.70",
    "KD-pt": "57.05, 56.99, 56.25",
    "KD-sim": "51.90, 53.69, 57.20",
}

PROTOCOL = Protocol(
    name="tang2020_partial_kd",
    title="Tang 2020: parts of distillation, on classes of controlled similarity",
    about=ABOUT,
    rows=("teacher", "student", *CANDIDATES),
    train=train,
    claims=CLAIMS,
    settings=SETTINGS,
    paper=PAPER,
)
