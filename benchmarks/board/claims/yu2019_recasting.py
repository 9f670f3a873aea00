"""Yu, Kang, Choi 2019: network recasting into a thinner plain network."""

import keras
from pairs import BATCH, LOSS, Net
from training import cached_teacher, fast_teacher

import keras_distill as kd
from claims import cifar
from claims.protocol import Claim, Protocol
from claims.training import accuracy, adam
from keras_distill import losses

IMAGES, TEST, BLOCK, FINE_TUNING, RATE = 10_000, 10_000, 5, 10, 3e-3
STUDENT = Net("thin", "conv_net", {"filters": (8, 32, 64)})
SETTINGS = {
    "images": IMAGES,
    "epochs": {"block": BLOCK, "fine-tuning": FINE_TUNING},
    "rate": RATE,
    "teacher": "resnet20",
    "student": STUDENT.settings,
}
SMOKE = {"IMAGES": 128, "TEST": 128, "BLOCK": 1, "FINE_TUNING": 1}
ABOUT = f"""Small-scale stand-in: ResNet-20 (trained on all images of a JPEG copy of CIFAR-10)
is recast into a plain network of one convolution for each of its three stages, whose first
has half the channels: 8, 32 and 64 filters, {IMAGES:,} images. As the first stage's shape
differs, it is recast together with the second, as in the paper; then the third; then all is
fine-tuned on labels and the mean squared distance of the logits. Each of the two
blocks has {BLOCK} epochs and the fine-tuning {FINE_TUNING}; the other rows have all
{2 * BLOCK + FINE_TUNING} on labels, alone or with soft targets (T = 4, weight 0.9, labels
0.1). The student begins with the teacher's last layer where it is recast. All rows: Adam
with a rate of {RATE:g} that falls to 0 by a cosine in each stage, batches of {BATCH}, random
crops and mirrored images. Test error in %; the paper's figures are for VGG-16."""


def optimizer(epochs: int, images: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of a stage."""
    return adam(epochs * (images // BATCH), RATE)


def recast(student, teacher, samples, seed: int) -> keras.Model:
    """Return the student after recasting and fine-tuning."""
    kd.copy_weights(student, teacher, ["logits"])
    blocks = [(stage, stage) for stage in cifar.STAGES]
    epochs = {"epochs": BLOCK, "fine_tuning_epochs": FINE_TUNING}
    stages = kd.recasting_stages(student, teacher, blocks, **epochs)
    for stage in stages:
        stage.optimizer = optimizer(stage.epochs, len(samples))
    distiller = kd.Distiller(student, fast_teacher(teacher, samples))
    distiller.compile("adam", LOSS)
    kd.fit_stages(distiller, stages, cifar.batches(samples, seed), verbose=0)
    return student


def trained(row: str, seed: int, samples, scratch) -> keras.Model:
    """Return a student trained by a row."""
    student, teacher = STUDENT.build(1000 + seed), cifar.board_teacher("resnet20")
    if row == "recast":
        return recast(student, teacher, samples, seed)
    epochs = 2 * BLOCK + FINE_TUNING
    by = optimizer(epochs, len(samples))
    if row == "labels":
        return cifar.fit(student, samples, epochs, seed, by)
    cached = cached_teacher(teacher, samples, scratch / "logits")
    soft = [kd.Term(losses.SoftTarget(4.0), weight=0.9)]
    return cifar.distill(student, cached, soft, samples, epochs, seed, 0.1, by)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = cifar.load(IMAGES, TEST)
    student = trained(row, seed, data.train, scratch)
    return {"error": 100 - accuracy(student, data.test)}


PROTOCOL = Protocol(
    name="yu2019_recasting",
    title="Yu, Kang, Choi 2019: network recasting",
    about=ABOUT,
    rows=("labels", "soft targets", "recast"),
    train=train,
    claims=(
        Claim(
            "Recasting is better than training from scratch",
            *("recast", "labels", "error"),
            larger=False,
        ),
        Claim(
            "Recasting is better than soft targets",
            *("recast", "soft targets", "error"),
            larger=False,
        ),
    ),
    settings=SETTINGS,
    paper={"recast": "8.31", "soft targets": "9.24", "labels": "8.71"},
)
