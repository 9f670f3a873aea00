"""Kim 2018: factor transfer, for several rates of the paraphraser."""

import keras
from pairs import RESNET8
from training import cached_teacher, fast_teacher

import keras_distill as kd
from claims import cifar
from claims.protocol import Claim, Protocol
from claims.training import accuracy, stored
from keras_distill import losses

IMAGES, TEST, EPOCHS = 5000, 10_000, 20
PARAPHRASED, PARAPHRASER_EPOCHS = 10_000, 5
RATES = {f"FT, k = {rate:g}": rate for rate in (0.5, 1.0, 2.0, 4.0)}
SETTINGS = {
    "images": IMAGES,
    "epochs": EPOCHS,
    "paraphraser": {"images": PARAPHRASED, "epochs": PARAPHRASER_EPOCHS},
    "networks": ["resnet20", "resnet8"],
}
SMOKE = {"IMAGES": 128, "TEST": 128, "EPOCHS": 1, "PARAPHRASED": 128}
ABOUT = f"""Small-scale stand-in: ResNet-20 and ResNet-8 on a JPEG copy of CIFAR-10 instead of
ResNet-110 and ResNet-20 on CIFAR-100; the student has {IMAGES:,} images and {EPOCHS}
epochs, the teacher all. The paraphraser is trained on the end of the teacher's last stage,
on {PARAPHRASED:,} of the teacher's images, {PARAPHRASER_EPOCHS} epochs of Adam. FT has the
authors' weight of 500 at k = 0.5, where the factors have the size of theirs, and
`500 * sqrt(2 k)` at others, which is the same pull on factors of another size. KD at T = 4
has a weight of 0.9 and its labels 0.1; AT has the authors' 1000. {cifar.HOW} Test error
in %; the paper's figures are those of its CIFAR-100 table."""


def paraphraser(rate: float, teacher) -> keras.Model:
    """Return a model of one layer, a paraphraser trained on the teacher."""
    layer = kd.adapters.Paraphraser(rate)
    model = keras.Sequential(
        [keras.Input(teacher.get_layer("stack3").output.shape[1:])]
    )
    model.add(layer)
    images = cifar.load(PARAPHRASED, TEST).train.images
    layer.train_on(teacher, "stack3", images, epochs=PARAPHRASER_EPOCHS, verbose=0)
    return model


def factors(rate: float, teacher, scratch) -> list[kd.Term]:
    """Return the term of the factors of a trained paraphraser."""
    file = scratch / f"paraphraser_{rate:g}.keras"
    layer = stored(file, lambda: paraphraser(rate, teacher)).layers[-1]
    weight = 500.0 * (2 * rate) ** 0.5
    return [kd.Term(losses.FactorTransfer(layer), "stack3", "stack3", weight)]


def trained(row: str, seed: int, samples, scratch) -> keras.Model:
    """Return a student trained by a row."""
    student = RESNET8.build(1000 + seed)
    if row == "student":
        return cifar.fit(student, samples, EPOCHS, seed)
    teacher = cifar.board_teacher("resnet20")
    if row == "KD":
        cached = cached_teacher(teacher, samples, scratch / "logits")
        soft = [kd.Term(losses.SoftTarget(4.0), weight=0.9)]
        return cifar.distill(student, cached, soft, samples, EPOCHS, seed, 0.1)
    if row == "AT":
        terms = cifar.on_stages(losses.AttentionMap())
    else:
        terms = factors(RATES[row], teacher, scratch)
    fast = fast_teacher(teacher, samples)
    return cifar.distill(student, fast, terms, samples, EPOCHS, seed)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = cifar.load(IMAGES, TEST)
    student = trained(row, seed, data.train, scratch)
    return {"error": 100 - accuracy(student, data.test)}


PROTOCOL = Protocol(
    name="kim2018_factors",
    title="Kim 2018: factor transfer",
    about=ABOUT,
    rows=("student", "FT, k = 0.5", "AT", "KD", "FT, k = 1", "FT, k = 2", "FT, k = 4"),
    train=train,
    claims=(
        Claim("FT helps at k = 0.5", "FT, k = 0.5", "student", "error", larger=False),
        Claim("FT helps more than AT", "FT, k = 0.5", "AT", "error", larger=False),
        Claim("FT helps more than KD", "FT, k = 0.5", "KD", "error", larger=False),
        *(
            Claim(
                f"FT helps at {rate}", f"FT, {rate}", "student", "error", larger=False
            )
            for rate in ("k = 1", "k = 2", "k = 4")
        ),
    ),
    settings=SETTINGS,
    paper={
        "student": "31.24",
        "AT": "31.04",
        "KD": "33.14",
        "FT, k = 0.5": "29.20",
        "FT, k = 1": "29.28",
        "FT, k = 2": "29.19",
        "FT, k = 4": "29.08",
    },
)
