"""You 2017: the mean of several teachers, and their votes on triplets."""

import keras
from pairs import CONV, RESNET8, SHAPE, Net
from training import fast_teacher

import keras_distill as kd
from claims import cifar
from claims.protocol import Claim, Protocol
from claims.training import accuracy, stored
from keras_distill import losses

IMAGES, TEST, EPOCHS, TEACHER_EPOCHS = 5000, 10_000, 20, 30
TEACHERS = (
    RESNET8,
    CONV,
    Net("thin", "conv_net", {"filters": (8, 16, 32), "convs_per_stack": 2}),
)
STUDENT = Net("student", "conv_net", {"filters": (8, 16, 32)})
SETTINGS = {
    "images": IMAGES,
    "epochs": {"student": EPOCHS, "teachers": TEACHER_EPOCHS},
    "teachers": [net.name for net in TEACHERS],
}
SMOKE = {"IMAGES": 128, "TEST": 128, "EPOCHS": 1, "TEACHER_EPOCHS": 1}
ABOUT = f"""Small-scale stand-in: the first {IMAGES:,} images of a JPEG copy of CIFAR-10 for the
teachers and the student, as in the paper. Three teachers that differ, trained for
{TEACHER_EPOCHS} epochs: ResNet-8, a plain network of three convolutions (16, 32 and 64
filters) and one of six (8, 16 and 32); all seeds have the same. The student has three
convolutions of 8, 16 and 32 filters and {EPOCHS} epochs. Soft targets at T = 4 have a
weight of 0.9 and labels 0.1, of the first teacher (the best by its size) or of the mean of
all; votes of which two images are nearer to each other at the end of the second stage have
a weight of 1. {cifar.HOW} Test accuracy in %."""
VOTES = tuple(f"{member}/stack2" for member in range(len(TEACHERS)))
ROWS = {
    "alone": "",
    "votes": "votes",
    "KD of the first": "first",
    "KD of the mean": "mean",
    "KD of the mean, votes": "mean votes",
}


def terms(parts: str) -> list[kd.Term]:
    """Return the terms of a row."""
    soft = kd.Term(losses.SoftTarget(4.0), weight=0.9)
    votes = kd.Term(losses.VotedTriplet(), "stack2", VOTES, weight=1.0)
    found = [soft] if "first" in parts or "mean" in parts else []
    return found + [votes] * ("votes" in parts)


def teachers(samples, scratch) -> list[keras.Model]:
    """Return the trained teachers."""
    return [
        stored(
            scratch / f"{net.name}.keras",
            lambda i=i, net=net: cifar.fit(net.build(i), samples, TEACHER_EPOCHS, i),
        )
        for i, net in enumerate(TEACHERS)
    ]


def mean_of(nets) -> keras.Model:
    """Return the mean of the probabilities of networks."""
    images = keras.Input(SHAPE)
    parts = [keras.ops.softmax(net(images)) for net in nets]
    return keras.Model(images, keras.layers.average(parts))


def trained(row: str, seed: int, samples, scratch) -> keras.Model:
    """Return what a row evaluates."""
    student, parts = STUDENT.build(1000 + seed), ROWS.get(row, "")
    if row == "alone":
        return cifar.fit(student, samples, EPOCHS, seed)
    nets = teachers(samples, scratch)
    if row == "mean of the teachers":
        return mean_of(nets)
    if row == "first teacher":
        return nets[0]
    teacher = fast_teacher(nets[0], samples) if parts == "first" else kd.Ensemble(nets)
    labels = 1.0 if parts == "votes" else 0.1
    learns = terms(parts)
    return cifar.distill(student, teacher, learns, samples, EPOCHS, seed, labels)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = cifar.load(IMAGES, TEST)
    model = trained(row, seed, data.train, scratch)
    return {"accuracy": accuracy(model, data.test)}


PROTOCOL = Protocol(
    name="you2017_teachers",
    title="You 2017: multiple teachers",
    about=ABOUT,
    rows=(*ROWS, "first teacher", "mean of the teachers"),
    train=train,
    claims=tuple(
        Claim(text, better, worse, "accuracy")
        for text, better, worse in (
            ("The mean of the teachers helps", "KD of the mean", "alone"),
            ("Several teachers help more", "KD of the mean", "KD of the first"),
            ("Votes on triplets help", "votes", "alone"),
            ("Votes add to the mean", "KD of the mean, votes", "KD of the mean"),
        )
    ),
    settings=SETTINGS,
)
