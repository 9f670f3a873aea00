"""Each kind of task with each distiller: the right number, or an error that names a cause.

A row is a task: data, the loss that it is compiled with, nets, and the formula of what
is distilled by default, in NumPy and float64.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd

pytestmark = pytest.mark.long

X = np.random.default_rng(0).normal(size=(16, 8, 8, 2)).astype("float32")
TEMPERATURE = 4.0


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def of_classes(student, teacher, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1).mean()


def of_labels(student, teacher, temperature):
    p, q = sigmoid(teacher / temperature), sigmoid(student / temperature)
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return temperature**2 * each.mean()


def of_values(student, teacher, temperature):
    del temperature
    return ((student - teacher) ** 2).mean()


def mean_of_classes(members, temperature):
    return temperature * np.log(sum(softmax(z / temperature) for z in members) / 2)


def mean_of_labels(members, temperature):
    p = sum(sigmoid(z / temperature) for z in members) / 2
    return temperature * np.log(p / (1 - p))


def mean_of_values(members, temperature):
    del temperature
    return sum(members) / 2


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of task.

    Args:
        name: of the task.
        loss: that is compiled.
        labels: of the data.
        outputs: of a net, its last axis.
        formula: of the default term.
        mean: of an ensemble's outputs.
        is_map: whether a net returns one prediction per pixel.
    """

    name: str
    loss: object
    labels: np.ndarray
    outputs: int
    formula: Callable
    mean: Callable
    is_map: bool = False

    def net(self, width, seed, name):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((8, 8, 2))
        x = layers.Conv2D(width, 3, padding="same", activation="tanh", name="hidden")(
            inputs
        )
        if self.is_map:
            x = layers.Conv2D(self.outputs, 1, name="out")(x)
        else:
            x = layers.Dense(self.outputs, name="out")(layers.Flatten()(x))
        if self.name == "embedding":
            x = layers.UnitNormalization()(x)
        return keras.Model(inputs, x, name=name)


RNG = np.random.default_rng(1)
CLASSES = RNG.integers(0, 4, 16)
VALUES = RNG.normal(size=(16, 3)).astype("float32")
CATEGORICAL, BINARY, REGRESSION = (
    (of_classes, mean_of_classes),
    (of_labels, mean_of_labels),
    (of_values, mean_of_values),
)
LOGITS = {"from_logits": True}
TASKS = [
    Task(
        "categorical",
        keras.losses.CategoricalCrossentropy(**LOGITS),
        np.eye(4, dtype="float32")[CLASSES],
        4,
        *CATEGORICAL,
    ),
    Task(
        "sparse",
        keras.losses.SparseCategoricalCrossentropy(**LOGITS),
        CLASSES,
        4,
        *CATEGORICAL,
    ),
    Task(
        "binary",
        keras.losses.BinaryCrossentropy(**LOGITS),
        (CLASSES > 1).astype("float32")[:, None],
        1,
        *BINARY,
    ),
    Task(
        "multi-label",
        keras.losses.BinaryFocalCrossentropy(**LOGITS),
        (VALUES > 0).astype("float32"),
        3,
        *BINARY,
    ),
    Task("regression", "mae", VALUES, 3, *REGRESSION),
    Task(
        "segmentation",
        keras.losses.SparseCategoricalCrossentropy(**LOGITS),
        RNG.integers(0, 4, (16, 8, 8)),
        4,
        *CATEGORICAL,
        is_map=True,
    ),
    Task(
        "binary segmentation",
        keras.losses.BinaryCrossentropy(**LOGITS),
        RNG.integers(0, 2, (16, 8, 8, 1)).astype("float32"),
        1,
        *BINARY,
        is_map=True,
    ),
    Task("embedding", keras.losses.CosineSimilarity(), VALUES, 3, *REGRESSION),
]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def fit(distiller, task):
    distiller.compile(keras.optimizers.SGD(0.0), task.loss, run_eagerly=True)
    arguments = {"batch_size": len(X), "verbose": 0}
    history = distiller.fit(X, task.labels, **arguments).history
    return {name: values[0] for name, values in history.items()}


def outputs(*nets):
    return [net.predict(X, verbose=0).astype("float64") for net in nets]


def default_part(found):
    (part,) = (x for name, x in found.items() if name not in ("loss", "label_loss"))
    return part


@every_task
def test_distiller(task):
    student, teacher = task.net(2, 0, "student"), task.net(5, 1, "teacher")
    expected = task.formula(*outputs(student, teacher), TEMPERATURE)
    found = default_part(fit(kd.Distiller(student, teacher), task))
    assert expected > 1e-5
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@every_task
def test_ensemble(task):
    student = task.net(2, 0, "student")
    members = [task.net(5, seed, f"member{seed}") for seed in (1, 2)]
    z, *others = outputs(student, *members)
    expected = task.formula(z, task.mean(others, TEMPERATURE), TEMPERATURE)
    found = default_part(fit(kd.Distiller(student, kd.EnsembleTeacher(members)), task))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@every_task
def test_mean_teacher(task):
    """The first mean is the student itself, which teaches it nothing yet."""
    student = task.net(2, 0, "student")
    found = default_part(fit(kd.Distiller(student, kd.MeanTeacher(student)), task))
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


@every_task
def test_mutual_distiller(task):
    peers = [task.net(2, 0, "a"), task.net(5, 1, "b")]
    found = fit(kd.MutualDistiller(peers), task)
    first, second = outputs(*peers)
    for name, sides in (("a", (first, second)), ("b", (second, first))):
        (part,) = (
            x for key, x in found.items() if key.startswith(name) and "from" in key
        )
        np.testing.assert_allclose(part, task.formula(*sides, 1.0), rtol=1e-3)


@every_task
def test_self_distiller(task):
    distiller = kd.SelfDistiller(task.net(4, 0, "net"), ["hidden"], temperature=2.0)
    found = fit(distiller, task)["soft_hidden"]
    z = distiller.predict(X, verbose=0)
    sides = (z[name].astype("float64") for name in ("hidden", "deepest"))
    np.testing.assert_allclose(found, task.formula(*sides, 2.0), rtol=1e-3)


# --- detection: several outputs, of which each has its loss ---


def detector(width, seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 2))
    x = layers.Flatten()(layers.Conv2D(width, 3, activation="tanh")(inputs))
    heads = {
        "box": layers.Dense(4, name="box")(x),
        "kind": layers.Dense(3, name="kind")(x),
    }
    return keras.Model(inputs, heads, name=f"detector{seed}")


DETECTION = Task(
    "detection",
    {"box": "huber", "kind": keras.losses.BinaryFocalCrossentropy(**LOGITS)},
    {"box": RNG.normal(size=(16, 4)).astype("float32"), "kind": np.float32(VALUES > 0)},
    0,
    *BINARY,
)


def test_detection_by_terms():
    student, teacher = detector(2, 0), detector(5, 1)
    terms = [
        kd.Term(kd.losses.OutputRegression(), "logits/box", "logits/box"),
        kd.Term(kd.losses.BinarySoftTarget(), "logits/kind", "logits/kind"),
    ]
    z, t = (net.predict(X, verbose=0) for net in (student, teacher))
    found = fit(kd.Distiller(student, teacher, terms=terms), DETECTION)
    sides = {
        name: [x[name].astype("float64") for x in (z, t)] for name in ("box", "kind")
    }
    np.testing.assert_allclose(
        found["output_regression"], of_values(*sides["box"], 1.0), rtol=1e-3
    )
    expected = of_labels(*sides["kind"], TEMPERATURE)
    np.testing.assert_allclose(found["binary_soft_target"], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("loss", "head", "right"),
    [
        (kd.losses.SoftTarget(), "kind", "BinarySoftTarget"),
        (kd.losses.BinarySoftTarget(), "box", "OutputRegression"),
    ],
)
def test_detection_by_a_term_that_does_not_fit(loss, head, right):
    term = kd.Term(loss, f"logits/{head}", f"logits/{head}")
    distiller = kd.Distiller(detector(2, 0), detector(5, 1), terms=[term])
    with pytest.raises(ValueError, match=rf"does not fit the task.*{right}"):
        fit(distiller, DETECTION)


@pytest.mark.parametrize(
    "make",
    [
        lambda: kd.Distiller(detector(2, 0), detector(5, 1)),
        lambda: kd.Distiller(
            detector(2, 0), kd.EnsembleTeacher([detector(5, 1), detector(5, 2)])
        ),
        lambda: kd.MutualDistiller([detector(2, 0), detector(5, 1)]),
        lambda: kd.SelfDistiller(detector(2, 0), ["conv2d"]),
    ],
    ids=["distiller", "ensemble", "mutual", "self"],
)
def test_detection_without_terms_names_the_outputs(make):
    """Which head teaches by which loss is the user's to say."""
    with pytest.raises(ValueError, match=r"several outputs.*'logits/|has 2 outputs"):
        make()
