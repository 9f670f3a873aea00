"""Chen 2018, DarkRank: the order of a sample's neighbors, on classes not trained on."""

import functools

import keras
import tensorflow as tf
from chen2018_darkrank import mean_average_precision

import keras_distill as kd
from claims.protocol import Claim, Protocol
from claims.training import fit_on, stored
from keras_distill import losses

CLASSES, IMAGES, TEST, OF_CLASS, EPOCHS, UNITS = 6, 6000, 2000, 10, 15, 64
NETS = {
    "teacher": {"filters": (16, 32, 64), "convs_per_stack": 2},
    "student": {"filters": (4, 8, 16), "convs_per_stack": 1},
}
SETTINGS = {
    "images": IMAGES,
    "test_images": TEST,
    "of_each_class_in_a_batch": OF_CLASS,
    "epochs": EPOCHS,
    "embedding": UNITS,
    "networks": NETS,
}
SMOKE = {"IMAGES": 200, "TEST": 100, "EPOCHS": 1}
ABOUT = f"""Small-scale stand-in: MNIST instead of CUHK03 and Market1501. Embeddings of {UNITS}
numbers, a dense layer without activation, are trained on {IMAGES:,} images of the classes 0
to 5 and tried on {TEST:,} test images of the classes 6 to 9: for each image the others are
ranked by distance, and the measure is the mean average precision in %. Plain convolutional
networks of {NETS["teacher"]["filters"]} filters, two convolutions each (teacher), and
{NETS["student"]["filters"]}, one each (student); batches hold {OF_CLASS} images of each
class; {EPOCHS} epochs of Adam with a rate of 1e-3 that falls to 0 by a cosine. All networks,
the teacher too, learn by the paper's three losses of labels: classification, verification
and triplets. Every term but classification is `"balanced"`: it pulls as hard as the labels
as the training begins. The claim that the hard form helps more than soft targets was added
after the first seed; nothing else was changed."""

LABELS = {"verification": losses.Verification, "triplets": losses.ClassTriplet}
TERMS = {
    "soft": lambda: on_embeddings(losses.SoftRank()),
    "hard": lambda: on_embeddings(losses.HardRank(items=10)),
    "KD": lambda: kd.Term(losses.SoftTarget(4.0), weight="balanced"),
}
ROWS = {
    "student": (),
    "KD": ("KD",),
    "DarkRank soft": ("soft",),
    "DarkRank hard": ("hard",),
    "KD + DarkRank soft": ("KD", "soft"),
    "KD + DarkRank hard": ("KD", "hard"),
}


def on_embeddings(loss) -> kd.Term:
    """Return a balanced term on the embeddings."""
    return kd.Term(loss, "embedding", "embedding", weight="balanced")


def net(kind: str, seed: int) -> keras.Model:
    """Return a network before it is trained, with an embedding before its logits."""
    keras.utils.set_random_seed(seed)
    body = kd.models.conv_net((28, 28, 1), CLASSES, **NETS[kind])
    x = keras.layers.Dense(UNITS, name="embedding")(body.get_layer("pool").output)
    logits = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(body.input, logits, name=kind)


def balanced_batches(samples, seed: int) -> tf.data.Dataset:
    """Return batches that hold equally many images of each class."""
    parts = [samples.only([label]) for label in range(CLASSES)]
    count = min(map(len, parts))
    by_class = [
        kd.data.batches(part[:count], OF_CLASS, shuffle=True, seed=seed + i)
        for i, part in enumerate(parts)
    ]

    def joined(*found):
        images, labels = zip(*found, strict=True)
        return tf.concat(images, 0), tf.concat(labels, 0)

    return tf.data.Dataset.zip(*by_class).map(joined)


def trained(kind: str, seed: int, samples, teacher=None, names=()) -> keras.Model:
    """Return a network trained on labels, and on terms of a teacher if there is one."""
    model = net(kind, seed)
    terms = [
        kd.Term(make(), student="embedding", weight="balanced")
        for make in LABELS.values()
    ]
    terms += [TERMS[name]() for name in names]
    distiller = kd.Distiller(model, teacher or net(kind, seed), terms=terms)
    fit_on(distiller, balanced_batches(samples, seed), EPOCHS)
    return model


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = kd.data.load("mnist")
    samples = data.train.only(range(CLASSES))[:IMAGES]
    test = data.test.without(range(CLASSES))[:TEST]
    teach = functools.partial(trained, "teacher", seed, samples)
    model = teacher = stored(scratch / f"teacher_{seed}.keras", teach)
    if row != "teacher":
        model = trained("student", 1000 + seed, samples, teacher, ROWS[row])
    return {"mean average precision": mean_average_precision(model, test, "embedding")}


PROTOCOL = Protocol(
    name="chen2018_darkrank",
    title="Chen 2018: DarkRank",
    about=ABOUT,
    rows=("teacher", *ROWS),
    train=train,
    claims=tuple(
        Claim(text, better, worse, "mean average precision")
        for text, better, worse in (
            ("The order of neighbors helps, soft", "DarkRank soft", "student"),
            ("The order of neighbors helps, hard", "DarkRank hard", "student"),
            ("It helps more than soft targets, soft", "DarkRank soft", "KD"),
            ("It helps more than soft targets, hard", "DarkRank hard", "KD"),
            ("It adds to soft targets, soft", "KD + DarkRank soft", "KD"),
            ("It adds to soft targets, hard", "KD + DarkRank hard", "KD"),
        )
    ),
    settings=SETTINGS,
)
