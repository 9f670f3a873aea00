"""Zagoruyko 2017: attention maps, full activations and soft targets."""

import keras
from pairs import WRN16X1
from training import cached_teacher, fast_teacher

import keras_distill as kd
from claims import cifar
from claims.protocol import Claim, Protocol
from claims.training import accuracy
from keras_distill import losses

IMAGES, TEST, EPOCHS, SIZES = 5000, 10_000, 20, (32, 16, 8)
# The authors' beta on a mean over H W locations, as a weight of the sum over them.
ON_SUM = [1000.0 / size**2 for size in SIZES]
SETTINGS = {"images": IMAGES, "epochs": EPOCHS, "networks": ["wrn16x2", "wrn16x1"]}
SMOKE = {"IMAGES": 128, "TEST": 128, "EPOCHS": 1}
ABOUT = f"""Small-scale stand-in: WRN-16-1 from WRN-16-2 as in the paper, on {IMAGES:,} images
of a JPEG copy of CIFAR-10 and with {EPOCHS} epochs; the teacher is trained on all 50,000. Terms
at the ends of the three stages, of {SIZES[0]}x{SIZES[0]}, {SIZES[1]}x{SIZES[1]} and
{SIZES[2]}x{SIZES[2]} locations as in the paper; AT has the authors' weight of 1000 on the
mean over the locations, which is 1000 / (H W) on their sum, and F-ActT has 1000 / (H W) on
its sum. KD at T = 4 has the paper's weight of 0.9, and its labels 0.1. {cifar.HOW} Test
error in %."""


def terms(row: str) -> list[kd.Term]:
    """Return the terms of a row."""
    by_part = {
        "AT": lambda: cifar.on_stages(losses.AttentionMap()),
        "F-ActT": lambda: cifar.on_stages(losses.FullActivation(), ON_SUM),
        "KD": lambda: [kd.Term(losses.SoftTarget(4.0), weight=0.9)],
    }
    return [term for part in row.split("+") for term in by_part[part]()]


def trained(row: str, seed: int, samples, scratch) -> keras.Model:
    """Return a student trained by a row."""
    student = WRN16X1.build(1000 + seed)
    if row == "student":
        return cifar.fit(student, samples, EPOCHS, seed)
    teacher = cifar.board_teacher("wrn16x2")
    if row == "KD":
        teacher = cached_teacher(teacher, samples, scratch / "logits")
    else:
        teacher = fast_teacher(teacher, samples)
    labels = 0.1 if "KD" in row else 1.0
    return cifar.distill(student, teacher, terms(row), samples, EPOCHS, seed, labels)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = cifar.load(IMAGES, TEST)
    student = trained(row, seed, data.train, scratch)
    return {"error": 100 - accuracy(student, data.test)}


def lower(text: str, better: str, worse: str) -> Claim:
    """Return a claim of a lower error."""
    return Claim(text, better, worse, "error", larger=False)


PROTOCOL = Protocol(
    name="zagoruyko2017_attention",
    title="Zagoruyko 2017: attention transfer",
    about=ABOUT,
    rows=("student", "AT", "F-ActT", "KD", "AT+KD"),
    train=train,
    claims=(
        lower("Attention maps help", "AT", "student"),
        lower("Full activations help", "F-ActT", "student"),
        lower("Attention maps help more than full activations", "AT", "F-ActT"),
        lower("Soft targets help", "KD", "student"),
        lower("With soft targets, attention maps help more", "AT+KD", "AT"),
    ),
    settings=SETTINGS,
    paper={
        "student": "8.77",
        "AT": "7.93",
        "F-ActT": "8.51",
        "KD": "7.41",
        "AT+KD": "7.51",
    },
)
