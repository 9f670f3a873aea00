"""Hinton 2015, section 3: ten networks' soft targets in one network of their size."""

import keras
import numpy as np

import keras_distill as kd
from claims.protocol import Claim, Protocol
from claims.training import accuracy, fit, stored

NETS, UNITS, IMAGES, BATCH, EPOCHS = 10, 128, 3000, 100, 30
TEMPERATURE, LABEL_WEIGHT = 2.0, 0.5
SETTINGS = {
    "networks": NETS,
    "units": [UNITS, UNITS],
    "images": IMAGES,
    "batch": BATCH,
    "epochs": EPOCHS,
    "temperature": TEMPERATURE,
    "label_weight": LABEL_WEIGHT,
}
SMOKE = {"NETS": 2, "EPOCHS": 1, "IMAGES": 200}
ABOUT = f"""Small-scale stand-in: the first {IMAGES:,} images of MNIST instead of 2,000 hours of
speech, and perceptrons of two hidden layers of {UNITS} units, {EPOCHS} epochs of Adam with
a rate of 1e-3 that falls to 0 by a cosine. The ten networks differ in their first weights
and in the order of the images, as in the paper; the distilled one has the same size and
data, and soft targets of the mean of their logits (T = {TEMPERATURE:g}, the paper's best)
with a weight of {1 - LABEL_WEIGHT:g} beside the labels, as in the paper. Its figures:
accuracy of a frame in %."""


def load():
    """Return MNIST with the first images alone for training."""
    data = kd.data.load("mnist")
    return data.train[:IMAGES], data.test


def net(seed: int) -> keras.Model:
    """Return a network before it is trained."""
    keras.utils.set_random_seed(seed)
    return kd.models.mlp((28, 28, 1), 10, units=(UNITS, UNITS))


def trained(samples, seed: int) -> keras.Model:
    """Return a network trained on labels."""
    model = net(seed)
    fit(model, samples, BATCH, EPOCHS, seed)
    return model


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    samples, test = load()
    if row == "one network":
        return {"accuracy": accuracy(trained(samples, 100 * seed), test)}
    nets = [
        stored(
            scratch / f"net_{100 * seed + i}.keras",
            lambda i=i: trained(samples, 100 * seed + i),
        )
        for i in range(NETS)
    ]
    if row == "mean of ten":
        logits = np.mean(
            [model.predict(test.images, 1000, verbose=0) for model in nets], 0
        )
        return {"accuracy": 100 * float((logits.argmax(-1) == test.labels).mean())}
    student = net(5000 + seed)
    soft = kd.Term(kd.losses.SoftTarget(TEMPERATURE), weight=1 - LABEL_WEIGHT)
    distiller = kd.Distiller(
        student, kd.Ensemble(nets), terms=[soft], label_weight=LABEL_WEIGHT
    )
    fit(distiller, samples, BATCH, EPOCHS, seed)
    return {"accuracy": accuracy(student, test)}


PROTOCOL = Protocol(
    name="hinton2015_speech",
    title="Hinton 2015: ten networks in one",
    about=ABOUT,
    rows=("one network", "mean of ten", "distilled"),
    train=train,
    claims=(
        Claim(
            "Ten networks together are better than one",
            *("mean of ten", "one network", "accuracy"),
        ),
        Claim(
            "One network that learns their soft targets is better than one of labels",
            *("distilled", "one network", "accuracy"),
        ),
    ),
    settings=SETTINGS,
    paper={"one network": "58.9", "mean of ten": "61.1", "distilled": "60.8"},
)
