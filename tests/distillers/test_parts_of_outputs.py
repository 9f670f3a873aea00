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


def dict_net(seed):
    """Return a net whose outputs' keys are not the names of its layers."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    kind = keras.layers.Dense(3, name="first")(inputs)
    box = keras.layers.Dense(2, name="second")(inputs)
    return keras.Model(inputs, {"kind": kind, "box": box})


def distill_dicts(term, loss):
    distiller = kd.Distiller(dict_net(1), dict_net(2), terms=[term])
    distiller.compile(keras.optimizers.SGD(0.0), loss)
    logits = [net.predict(X, verbose=0)["kind"] for net in (dict_net(2), dict_net(1))]
    return distiller, *(z.astype("float64") for z in logits)


def test_a_list_of_labels_for_a_dict_of_outputs():
    term = kd.Term(kd.losses.SoftTarget(2.0), *["logits/kind"] * 2, name="term")
    losses = ["mse", cross_entropy(ignore_class=-1)]
    distiller, *logits = distill_dicts(term, losses)
    labels = np.where(np.arange(12) < 5, -1, KIND)
    found = distiller.train_on_batch(X, [BOX, labels], return_dict=True)["term"]
    expected = divergences(*logits)[5:].mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        kd.losses.DecoupledTarget(),
        kd.losses.ConfidenceWeightedLabel(),
        kd.losses.SoftTarget(target=kd.targets.TrueClass()),
    ],
)
def test_an_output_without_labels_is_refused(loss):
    term = kd.Term(loss, "logits/kind", "logits/kind", name="term")
    distiller, *_ = distill_dicts(term, {"box": "mse"})
    with pytest.raises(ValueError, match=r"'term' takes the labels.*Pass labels for"):
        distiller.fit(X, {"box": BOX}, verbose=0)


def test_a_layer_before_several_outputs_has_no_labels():
    term = kd.Term(kd.losses.ClassTriplet(), "first", "first", name="term")
    distiller, *_ = distill_dicts(term, {"box": "mse", "kind": cross_entropy()})
    with pytest.raises(ValueError, match=r"'term' takes the labels.*logits/<name>"):
        distiller.fit(X, {"box": BOX, "kind": KIND}, verbose=0)


def test_which_losses_compare_samples():
    names = """AngleRelation ClassTriplet ConditionalProbability
        ConfidenceWeightedLabel CorrelationCongruence DistanceRelation HardRank
        MultiLevelLogits NormalizedHint OrthogonalHint PredictionCorrelation
        SimilarityMatrix SoftRank Verification VotedTriplet"""
    losses = [getattr(kd.losses, name) for name in kd.losses.__all__]
    found = {x.__name__ for x in losses if getattr(x, "compares_samples", False)}
    assert found == set(names.split())


class OwnOutputs(keras.Model):
    """Returns a dict, of which Keras knows no names."""

    def __init__(self):
        super().__init__()
        self.box, self.kind = keras.layers.Dense(2), keras.layers.Dense(3)

    def call(self, x):
        return {"kind": self.kind(x), "box": self.box(x)}


def test_lists_for_a_dict_of_a_class_of_ones_own_are_refused():
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    kind, box = np.arange(8) % 3, np.zeros((8, 2), "float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    nets = [OwnOutputs(), OwnOutputs()]
    for one in nets:
        one(x)
    terms = [kd.Term(kd.losses.SoftTarget(), "logits/kind", "logits/kind")]
    distiller = kd.Distiller(*nets, terms=terms)
    distiller.compile("sgd", {"kind": loss, "box": "mse"})
    with pytest.raises(
        ValueError, match=r"dict of \['box', 'kind'\].*labels are a list"
    ):
        distiller.fit(x, [box, kind], verbose=0)
    distiller.compile("sgd", ["mse", loss])
    with pytest.raises(ValueError, match=r"losses are a list of 2"):
        distiller.fit(x, {"box": box, "kind": kind}, verbose=0)
    distiller.compile("sgd", {"kind": loss, "box": "mse"})
    assert (
        "soft_target" in distiller.fit(x, {"box": box, "kind": kind}, verbose=0).history
    )
