"""Yim 2017: flows of the solution procedure (FSP) as a first stage."""

import keras
from pairs import RESNET8
from training import fast_teacher

import keras_distill as kd
from claims import cifar
from claims.protocol import Claim, Protocol
from claims.training import accuracy
from keras_distill import losses

IMAGES, TEST, FIRST, SECOND = 10_000, 10_000, 6, 14
SETTINGS = {"images": IMAGES, "epochs": [FIRST, SECOND], "teacher": "resnet20"}
SMOKE = {"IMAGES": 128, "TEST": 128, "FIRST": 1, "SECOND": 1}
ABOUT = f"""Small-scale stand-in: a JPEG copy of CIFAR-10, ResNet-20 (trained on all images) and
ResNet-8 (the paper: 26 and 8 layers); the student has {IMAGES:,} images. FSP matrices of the
three stages, or a hint at the end of the second (FitNet), are learned in a first stage of
{FIRST} epochs without labels, by Adam; then labels alone, {SECOND} epochs. The student alone
has as many epochs on labels as both stages together, and, in another row, as the second
has: the paper claims that its student needs fewer. {cifar.HOW} Test accuracy in %."""
FIRSTS = {
    "FitNet": lambda: [kd.Term(losses.Hint(), "stack2", "stack2")],
    "FSP": cifar.flows,
}
ALONE = {"alone": lambda: FIRST + SECOND, "alone, fewer epochs": lambda: SECOND}


def trained(row: str, seed: int, samples) -> keras.Model:
    """Return a student trained by a row."""
    student = RESNET8.build(1000 + seed)
    if row in ALONE:
        return cifar.fit(student, samples, ALONE[row](), seed)
    teacher = fast_teacher(cifar.board_teacher("resnet20"), samples)
    epochs = FIRST, SECOND
    return cifar.distill_first(student, teacher, FIRSTS[row](), samples, epochs, seed)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = cifar.load(IMAGES, TEST)
    return {"accuracy": accuracy(trained(row, seed, data.train), data.test)}


PROTOCOL = Protocol(
    name="yim2017_fsp",
    title="Yim 2017: FSP",
    about=ABOUT,
    rows=(*ALONE, *FIRSTS),
    train=train,
    claims=(
        Claim("FSP helps, with equal epochs in total", "FSP", "alone", "accuracy"),
        Claim("FSP helps more than a hint", "FSP", "FitNet", "accuracy"),
        Claim(
            "FSP helps, with equal epochs of labels",
            *("FSP", "alone, fewer epochs", "accuracy"),
        ),
    ),
    settings=SETTINGS,
    paper={"alone": "87.91", "FitNet": "88.57", "FSP": "88.70"},
)
