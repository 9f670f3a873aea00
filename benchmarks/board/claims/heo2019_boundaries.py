"""Heo 2019: activation boundaries, with a tenth of the data."""

import keras
from pairs import RESNET8
from training import cached_teacher, fast_teacher

import keras_distill as kd
from claims import cifar
from claims.protocol import Claim, Protocol
from claims.training import accuracy
from keras_distill import losses

IMAGES, TEST, FIRST, SECOND = 5000, 10_000, 10, 20
SETTINGS = {"images": IMAGES, "epochs": [FIRST, SECOND], "teacher": "resnet20"}
SMOKE = {"IMAGES": 128, "TEST": 128, "FIRST": 1, "SECOND": 1}
ABOUT = f"""Small-scale stand-in: a JPEG copy of CIFAR-10, ResNet-20 (trained on all images) and
ResNet-8 instead of wide residual networks; the student has a tenth of the images, {IMAGES:,},
as in the paper. All rows have {FIRST + SECOND} epochs in total (the paper: 120). AB, FitNet
and FSP are trained in a first stage of {FIRST} epochs without labels, by Adam, and then on
labels alone for {SECOND}; the others learn with the labels in one stage of
{FIRST + SECOND}: KD at T = 4 with a weight of 0.9 and labels of 0.1, AT with the paper's
1000, the Jacobian with 1. {cifar.HOW} Test accuracy in %. The paper's figures are for
WRN-22-4 and WRN-16-2."""
BEFORE = {
    # A weight of about that of the authors' code, on the mean.
    "AB": lambda: cifar.on_stages(losses.ActivationBoundary(), [10.0] * 3, "input"),
    "FitNet": lambda: [kd.Term(losses.Hint(), "stack2", "stack2")],
    "FSP": cifar.flows,
}


def jacobian() -> list[kd.Term]:
    """Return the term of input gradients."""
    gradient = kd.Tap.input_gradient("first_class")
    return [kd.Term(losses.Jacobian(), gradient, gradient)]


def trained(row: str, seed: int, samples, scratch) -> keras.Model:
    """Return a student trained by a row."""
    student, epochs = RESNET8.build(1000 + seed), FIRST + SECOND
    if row == "alone":
        return cifar.fit(student, samples, epochs, seed)
    teacher = cifar.board_teacher("resnet20")
    if row == "KD":
        cached = cached_teacher(teacher, samples, scratch / "logits")
        soft = [kd.Term(losses.SoftTarget(4.0), weight=0.9)]
        return cifar.distill(student, cached, soft, samples, epochs, seed, 0.1)
    if row == "Jacobian":
        return cifar.distill(student, teacher, jacobian(), samples, epochs, seed)
    fast = fast_teacher(teacher, samples)
    if row == "AT":
        terms = cifar.on_stages(losses.AttentionMap())
        return cifar.distill(student, fast, terms, samples, epochs, seed)
    stages = FIRST, SECOND
    return cifar.distill_first(student, fast, BEFORE[row](), samples, stages, seed)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = cifar.load(IMAGES, TEST)
    student = trained(row, seed, data.train, scratch)
    return {"accuracy": accuracy(student, data.test)}


PROTOCOL = Protocol(
    name="heo2019_boundaries",
    title="Heo 2019: activation boundaries",
    about=ABOUT,
    rows=("alone", "AB", "AT", "KD", "FitNet", "FSP", "Jacobian"),
    train=train,
    claims=(
        Claim("AB helps on little data", "AB", "alone", "accuracy"),
        Claim("AB helps more than soft targets", "AB", "KD", "accuracy"),
        Claim("AB helps more than attention maps", "AB", "AT", "accuracy"),
        Claim("AB helps more than hints", "AB", "FitNet", "accuracy"),
        Claim("AB helps more than FSP", "AB", "FSP", "accuracy"),
        Claim("AB helps more than Jacobians", "AB", "Jacobian", "accuracy"),
        Claim("Attention maps help more than soft targets", "AT", "KD", "accuracy"),
    ),
    settings=SETTINGS,
    paper={
        "AB": "86.91",
        "AT": "84.39",
        "KD": "78.79",
        "FitNet": "78.58",
        "FSP": "79.20",
        "Jacobian": "84.97",
    },
)
