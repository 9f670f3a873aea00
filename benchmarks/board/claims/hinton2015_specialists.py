"""Hinton 2015, section 6: soft targets prevent specialists from overfitting."""

import keras
import numpy as np
from keras import ops

import keras_distill as kd
from claims import noisy_classes
from claims.protocol import Claim, Protocol
from claims.training import fit, logits_of, stored

UNITS, POINTS, BATCH = (128, 128, 128), 20_000, 200
EPOCHS, SOFT = {"generalist": 8, "specialist": 20}, 0.5
SETTINGS = {
    "units": UNITS,
    "points": POINTS,
    "batch": BATCH,
    "epochs": EPOCHS,
    "soft_weight": SOFT,
    **noisy_classes.RELATED,
    "seen": noisy_classes.SEEN,
}
SMOKE = {"POINTS": 400, "EPOCHS": {"generalist": 1, "specialist": 1}}
ROWS = (
    "generalist",
    "hard targets",
    "soft targets for all",
    "soft targets for other classes",
)
ABOUT = f"""In the paper's section 5 a specialist knows its classes and a dustbin; section 6
proposes a softmax over all classes, and that "we can make it retain nearly all of its
knowledge about the non-special classes by training it with soft targets for the non-special
classes in addition to training it with hard targets". It has no figures for this.
Small-scale stand-in: the synthetic classes with noisy labels of
[ten networks in one](hinton2015_speech.md), {POINTS:,} points and perceptrons of
{len(UNITS)} hidden layers of {UNITS[0]} units. The generalist has {EPOCHS["generalist"]}
epochs. Each of five specialists starts from its weights, has the points of one super-class
and as many others, and {EPOCHS["specialist"]} epochs of Adam; soft targets (T = 1) have a
weight of {SOFT:g} beside the labels, on points of other classes or on all. Accuracy in %, the
mean of the five, on points of the specialist's classes ("special") and on others ("other"),
each among the classes of its kind, so that it does not count how many of a kind there were
in training. "overfitting": accuracy on its training points of special classes less that on
test points. Nothing was tuned."""


@keras.saving.register_keras_serializable(package="claims")
class NotOf(kd.targets.Target):
    """The teacher's prediction for points of other classes, the label for points of these.

    Args:
        classes: that have hard targets alone.
    """

    needs = ("labels",)

    def __init__(self, classes):
        self.classes = [int(k) for k in classes]

    def call(self, teacher, temperature, labels):
        log_p = ops.log_softmax(teacher / temperature, axis=-1)
        label = ops.one_hot(labels, log_p.shape[-1])
        special = ops.sum(ops.take(label, self.classes, axis=-1), -1, keepdims=True) > 0
        return ops.where(special, ops.log(ops.maximum(label, 1e-30)), log_p)


def enriched(samples, classes, seed: int):
    """Return the points of some classes and as many others."""
    special, others = samples.only(classes), samples.without(classes)
    drawn = others.few(len(special), seed)
    images = np.concatenate([special.images, drawn.images])
    return kd.data.Samples(images, np.concatenate([special.labels, drawn.labels]))


def specialist(row: str, generalist, samples, classes, seed: int) -> keras.Model:
    """Return a specialist of some classes that starts from the generalist."""
    model = keras.models.clone_model(generalist)
    model.set_weights(generalist.get_weights())
    distiller = model
    if row != "hard targets":
        target = NotOf(classes) if row == "soft targets for other classes" else None
        soft = kd.Term(kd.losses.SoftTarget(1.0, target=target), weight=SOFT)
        distiller = kd.Distiller(
            model, generalist, terms=[soft], label_weight=1.0 - SOFT
        )
    fit(distiller, samples, BATCH, EPOCHS["specialist"], seed)
    return model


def within(model, samples, classes) -> float:
    """Return the accuracy in % on points of some classes, among these classes."""
    part, classes = samples.only(classes), np.array(classes)
    logits = logits_of(model, part)[:, classes]
    return 100 * float((classes[logits.argmax(-1)] == part.labels).mean())


def trained_generalist(samples, seed: int) -> keras.Model:
    """Return a network trained on labels of all classes."""
    model = noisy_classes.net(UNITS, seed)
    fit(model, samples, BATCH, EPOCHS["generalist"], seed)
    return model


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate the specialists of a row."""
    samples = noisy_classes.points("train", POINTS)
    test = noisy_classes.points("test", 10_000)
    generalist = stored(
        scratch / f"generalist_{seed}.keras", lambda: trained_generalist(samples, seed)
    )
    found = []
    for number, classes in enumerate(noisy_classes.groups()):
        model, own = generalist, enriched(samples, classes, seed)
        if row != "generalist":
            keras.utils.set_random_seed(100 * seed + number)
            model = specialist(row, generalist, own, classes, seed)
        others = [k for k in range(noisy_classes.CLASSES) if k not in classes]
        special = within(model, test, classes)
        gap = within(model, own, classes) - special
        found.append([special, within(model, test, others), gap])
    means = np.mean(found, 0).tolist()
    return dict(zip(("special", "other", "overfitting"), means, strict=True))


PROTOCOL = Protocol(
    name="hinton2015_specialists",
    title="Hinton 2015: specialists",
    about=ABOUT,
    rows=ROWS,
    train=train,
    claims=(
        Claim(
            "With soft targets for other classes a specialist knows them better than "
            "with hard targets alone",
            *("soft targets for other classes", "hard targets", "other"),
        ),
        Claim(
            "It knows them as well as the generalist",
            *("soft targets for other classes", "generalist", "other"),
            no_loss=True,
        ),
        Claim(
            "With soft targets for all it overfits less on its classes",
            *("soft targets for all", "hard targets", "overfitting"),
            larger=False,
        ),
        Claim(
            "With soft targets for all it is better at its classes than with hard ones",
            *("soft targets for all", "hard targets", "special"),
        ),
    ),
    settings=SETTINGS,
)
