"""Labels, weights and ignored classes of a student with several outputs."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.formulas import softmax

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype("float32")
KIND = np.arange(12) % 3
BOX = RNG.normal(size=(12, 2)).astype("float32")
WEIGHT = np.linspace(0, 2, 12).astype("float32")
TAPS = ["logits/kind", "logits/0"]


def net(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    outputs = [
        keras.layers.Dense(width, name=name)(inputs)
        for name, width in (("kind", 3), ("box", 2))
    ]
    return keras.Model(inputs, outputs)


def as_structure(kind, *parts):
    return (
        list(parts)
        if kind == "list"
        else dict(zip(("kind", "box"), parts, strict=True))
    )


def run(tap, kind, loss, cross_entropy, labels=KIND, weight=None):
    """Return the value of a term on the first output, and both nets' logits."""
    student, teacher = net(1), net(2)
    term = kd.Term(loss, tap, tap, name="term")
    distiller = kd.Distiller(student, teacher, terms=[term])
    distiller.compile(
        keras.optimizers.SGD(0.0), as_structure(kind, cross_entropy, "mse")
    )
    weight = weight if weight is None else as_structure(kind, weight, np.ones(12))
    labels = as_structure(kind, labels, BOX)
    logs = distiller.train_on_batch(X, labels, weight, return_dict=True)
    logits = [model.predict(X, verbose=0)[0] for model in (teacher, student)]
    return float(logs["term"]), *(z.astype("float64") for z in logits)


def cross_entropy(**arguments):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **arguments)


def divergences(teacher, student, temperature=2.0):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


@pytest.mark.parametrize("kind", ["list", "dict"])
@pytest.mark.parametrize("tap", TAPS)
def test_ignored_labels(tap, kind):
    labels = np.where(np.arange(12) < 5, -1, KIND)
    soft = kd.losses.SoftTarget(2.0)
    found, *logits = run(tap, kind, soft, cross_entropy(ignore_class=-1), labels)
    assert found == pytest.approx(divergences(*logits)[5:].mean(), rel=1e-5)


@pytest.mark.parametrize("tap", TAPS)
def test_sample_weights(tap):
    soft = kd.losses.SoftTarget(2.0)
    found, *logits = run(tap, "list", soft, cross_entropy(), weight=WEIGHT)
    assert found == pytest.approx((WEIGHT * divergences(*logits)).mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ["list", "dict"])
@pytest.mark.parametrize("tap", TAPS)
def test_losses_that_take_labels(tap, kind):
    loss = kd.losses.DecoupledTarget(1.0, alpha=1.0, beta=0.0)
    found, teacher, student = run(tap, kind, loss, cross_entropy())
    p, q = (softmax(z)[np.arange(12), KIND] for z in (teacher, student))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found == pytest.approx(expected.mean(), rel=1e-4)


@pytest.mark.parametrize("loss", ["SimilarityMatrix", "ClassTriplet"])
def test_samples_that_are_compared_are_not_left_out(loss):
    keras.utils.set_random_seed(0)
    nets = []
    for _ in range(2):
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(5, name="hidden")(inputs)
        nets.append(keras.Model(inputs, keras.layers.Dense(3)(hidden)))
    distiller = kd.Distiller(
        *nets, terms=[kd.Term(getattr(kd.losses, loss)(), "hidden", "hidden")]
    )
    distiller.compile("sgd", cross_entropy(ignore_class=-1))
    with pytest.raises(ValueError, match=r"ignore_class.*Filter these samples"):
        distiller.fit(X, KIND, verbose=0)
