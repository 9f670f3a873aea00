"""Cheng 2020: knowledge points of a hidden layer, distilled and trained on labels."""

import functools

import cheng2020_knowledge_points as example
import keras
import numpy as np
from keras import layers

import keras_distill as kd
from claims.protocol import Claim, Protocol
from claims.training import accuracy, adam, cross_entropy, stored

TEACHER_IMAGES, IMAGES, TEST, MEASURED = 10_000, 3000, 2000, 32
EPOCHS, CHECKPOINTS, BATCH = 30, 15, 50
FILTERS, HIDDEN, TAP = (16, 32), 128, "hidden"
SEARCH = {"steps": 60, "bound": 0.1, "draws": 1}
SETTINGS = {
    "teacher_images": TEACHER_IMAGES,
    "images": IMAGES,
    "measured": MEASURED,
    "epochs": EPOCHS,
    "checkpoints": CHECKPOINTS,
    "filters": list(FILTERS),
    "hidden": HIDDEN,
    "search": SEARCH,
}
SMOKE = {
    "TEACHER_IMAGES": 100,
    "IMAGES": 100,
    "TEST": 100,
    "MEASURED": 4,
    "EPOCHS": 2,
    "CHECKPOINTS": 2,
    "SEARCH": {**SEARCH, "steps": 2},
}
ABOUT = f"""Small-scale stand-in for birds: MNIST digits on textured grounds, images of 32x32
whose masks are known by construction. Teacher and students are the same network, as in the
paper: convolutions of {FILTERS[0]} and {FILTERS[1]} filters, each with max-pooling, a hidden
layer of {HIDDEN} units behind flattening, which is tapped, and the last layer. The teacher
learns {TEACHER_IMAGES:,} digits on fresh grounds in each epoch, the students {IMAGES:,} fixed
images; {EPOCHS} epochs of Adam, with a rate of 1e-3 that falls to 0 by a cosine. The distilled
student learns the teacher's hidden layer alone, and then a last layer from labels.

Knowledge points of {MEASURED} test images in 16x16 cells, bound {SEARCH["bound"]:g}, margin
0.2, at {CHECKPOINTS} checkpoints. The paper's figures are for CUB-200-2011 and VGG-16:
points on the object, on the background, lambda, D_mean, D_std, rho."""


def textured(digits, seed: int):
    """Return digits on grounds of a seed, and their masks."""
    padded = np.pad(digits.images, [(0, 0), (2, 2), (2, 2), (0, 0)])
    small = padded.reshape(-1, 8, 4, 8, 4, 1).mean((2, 4))
    return kd.data.textured_digits(kd.data.Samples(small, digits.labels), seed=seed)


@functools.cache
def load(images: int):
    """Return the students' images, and the test images with their masks."""
    mnist = kd.data.load("mnist")
    train = textured(mnist.train[-images:], 0)[0]
    return train, *textured(mnist.test[:TEST], 1)


def net(seed: int) -> keras.Model:
    """Return a network before it is trained."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((32, 32, 3))
    for filters in FILTERS:
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(HIDDEN, "relu", name=TAP)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def optimizer(count: int, rate: float = 1e-3):
    """Return Adam for a training on some images."""
    return adam(EPOCHS * -(-count // BATCH), rate)


class FreshGrounds(keras.utils.PyDataset):
    """Batches of digits, on grounds that are new in each epoch."""

    def __init__(self, digits, seed: int):
        super().__init__()
        self.digits, self.rng = digits, np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return len(self.digits) // BATCH

    def __getitem__(self, index):
        batch = self.samples[index * BATCH : (index + 1) * BATCH]
        return batch.images, batch.labels

    def on_epoch_end(self):
        """Draw an order and new grounds."""
        order = self.rng.permutation(len(self.digits))
        # Seeds of the students' and the test images are 0 and 1.
        seed = int(self.rng.integers(2, 2**31))
        self.samples = textured(self.digits[order], seed)[0]


def make_teacher(seed: int) -> keras.Model:
    """Return a trained teacher."""
    teacher = net(seed)
    teacher.compile(optimizer(TEACHER_IMAGES), cross_entropy())
    digits = kd.data.load("mnist").train[:TEACHER_IMAGES]
    teacher.fit(FreshGrounds(digits, seed), epochs=EPOCHS, verbose=0)
    return teacher


def trained(kind: str, teacher, seed: int):
    """Return a student and its weights at the checkpoints."""
    student, (samples, *_) = net(1000 + seed), load(IMAGES)
    checkpoints = example.Checkpoints(student, EPOCHS // CHECKPOINTS)
    model = student
    if kind == "distilled":
        hint = kd.Term(kd.losses.Hint(), TAP, TAP, weight=1.0)
        model = kd.Distiller(student, teacher, terms=[hint], label_weight=0.0)
    model.compile(optimizer(len(samples)), cross_entropy())
    settings = {"epochs": EPOCHS, "callbacks": [checkpoints], "verbose": 0}
    model.fit(samples.images, samples.labels, BATCH, **settings)
    return student, checkpoints.weights


def fit_last_layer(student) -> None:
    """Train the last layer alone on labels."""
    samples = load(IMAGES)[0]
    for layer in student.layers[:-1]:
        layer.trainable = False
    student.compile(optimizer(len(samples), 1e-2), cross_entropy())
    student.fit(samples.images, samples.labels, BATCH, EPOCHS, verbose=0)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    teacher = stored(scratch / f"teacher_{seed}.keras", lambda: make_teacher(seed))
    test, masks = load(IMAGES)[1:]
    if row == "teacher":
        return {"accuracy": accuracy(teacher, test)}
    student, weights = trained(row, teacher, seed)
    settings = {"images": MEASURED, "tap": TAP, "grid": 16, "search": SEARCH}
    found = example.measure(student, weights, test, masks, settings)[0]
    if row == "distilled":
        fit_last_layer(student)
    # Without any point on an object, distances are not defined.
    found = {name: value for name, value in found.items() if np.isfinite(value)}
    return {**found, "accuracy": accuracy(student, test)}


DISTILLED = "distilled", "from labels"
PROTOCOL = Protocol(
    name="cheng2020_knowledge_points",
    title="Cheng 2020: knowledge points",
    about=ABOUT,
    rows=("from labels", "teacher", "distilled"),
    train=train,
    claims=(
        Claim(
            "The distilled student has more points on the object",
            *DISTILLED,
            "foreground",
        ),
        Claim("It has fewer on the background", *DISTILLED, "background", larger=False),
        Claim("A larger part of its points is on the object", *DISTILLED, "lambda"),
        Claim("It learns its points earlier", *DISTILLED, "D_mean", larger=False),
        Claim(
            "It learns them more at the same time", *DISTILLED, "D_std", larger=False
        ),
        Claim("It keeps more of what it learns", *DISTILLED, "rho"),
    ),
    settings=SETTINGS,
    paper={
        "from labels": "22.50, 11.27, 0.68, 2.38, 4.98, 0.50",
        "distilled": "43.77, 8.73, 0.84, 0.64, 0.06, 0.66",
    },
)
