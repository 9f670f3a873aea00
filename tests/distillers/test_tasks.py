"""The default term follows what the student predicts; a term that does not fit is refused."""

import functools
import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from keras_distill.distillers import tasks

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(width, outputs, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    x = layers.Dense(width, "tanh", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(outputs, name="out")(x))


def pair(outputs):
    return net(3, outputs), net(8, outputs, seed=1)


def predictions(*models):
    return [x.predict(X, verbose=0).astype("float64") for x in models]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def bernoulli(student, teacher, temperature=4.0):
    p, q = sigmoid(teacher / temperature), sigmoid(student / temperature)
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return temperature**2 * each.mean()


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def categorical(student, teacher, temperature=4.0):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1).mean()


def squares(student, teacher):
    return ((teacher - student) ** 2).mean()


def labels(kind, outputs):
    rng = np.random.default_rng(1)
    if kind == "classes":
        return rng.integers(0, outputs, len(X))
    drawn = rng.normal(size=(len(X), outputs)).astype("float32")
    return (drawn > 0).astype("float32") if kind == "labels" else drawn


def parts(distiller, loss, *data):
    distiller.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    history = distiller.fit(*data, batch_size=len(X), verbose=0).history
    return {name: values[-1] for name, values in history.items()}


@pytest.mark.parametrize(
    ("loss", "kind", "outputs", "name", "formula"),
    [
        (BINARY, "labels", 1, "binary_soft_target", bernoulli),
        (BINARY, "labels", 4, "binary_soft_target", bernoulli),
        (SPARSE, "classes", 4, "soft_target", categorical),
        ("mse", "values", 1, "output_regression", squares),
        ("mean_absolute_error", "values", 3, "output_regression", squares),
        (keras.losses.Huber(), "values", 3, "output_regression", squares),
        ({"out": BINARY}, "labels", 3, "binary_soft_target", bernoulli),
        (["log_cosh"], "values", 3, "output_regression", squares),
    ],
)
def test_default_term_follows_the_loss(loss, kind, outputs, name, formula):
    student, teacher = pair(outputs)
    expected = formula(*predictions(student, teacher))
    y = labels(kind, outputs)
    found = parts(kd.Distiller(student, teacher), loss, X, y)
    assert set(found) == {"loss", "label_loss", name}
    np.testing.assert_allclose(found[name], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("outputs", "name", "formula"),
    [(1, "binary_soft_target", bernoulli), (3, "soft_target", categorical)],
)
def test_without_a_loss_it_follows_the_shape(outputs, name, formula):
    student, teacher = pair(outputs)
    expected = formula(*predictions(student, teacher))
    found = parts(kd.Distiller(student, teacher), None, X)
    np.testing.assert_allclose(found[name], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("loss", "outputs", "name", "formula"),
    [
        (BINARY, 3, "binary_soft_target", bernoulli),
        ("mse", 3, "output_regression", squares),
        ("mse", 1, "output_regression", squares),
        (SPARSE, 3, "soft_target", categorical),
    ],
)
def test_without_a_loss_it_follows_the_teachers(loss, outputs, name, formula):
    student, teacher = pair(outputs)
    teacher.compile("sgd", loss)
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = distiller.fit(X, verbose=0).history[name][0]
    assert found == pytest.approx(formula(*predictions(student, teacher)), rel=1e-4)
    assert not guesses(caught)
    distiller.compile(keras.optimizers.SGD(0.0), BINARY)
    assert list(distiller.terms) == ["binary_soft_target"]


def guesses(caught):
    return [str(x.message) for x in caught if "by their number" in str(x.message)]


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (
            lambda: pair(3),
            r"softmax.*BinarySoftTarget\(\) for labels.*SoftTarget\(4.0\)",
        ),
        (lambda: pair(1), r"a sigmoid each.*SoftTarget\(\) for classes"),
        (lambda: (pair(3)[0], kd.EnsembleTeacher(pair(3))), "softmax"),
    ],
)
def test_a_task_that_only_the_shape_shows_is_warned_of_once(make, advice):
    distiller = kd.Distiller(*make(), label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        distiller.fit(X, verbose=0)
        distiller.fit(X, verbose=0)
    (text,) = guesses(caught)
    assert re.search(advice, text)


@pytest.mark.parametrize(
    "settings",
    [
        {"y": np.arange(32) % 3},
        {"loss": SPARSE, "y": np.arange(32) % 3},
        {"classes": [0, 2, 1]},
        {"terms": [kd.Term(kd.losses.SoftTarget(4.0))]},
    ],
    ids=["labels", "loss", "classes", "terms"],
)
def test_a_task_that_is_evident_is_not_warned_of(settings):
    student, teacher = pair(3)
    teacher = kd.Teacher(teacher, classes=settings.get("classes"))
    distiller = kd.Distiller(student, teacher, terms=settings.get("terms"))
    distiller.compile(keras.optimizers.SGD(0.0), settings.get("loss"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        distiller.fit(X, settings.get("y"), verbose=0)
    assert not guesses(caught)


def test_a_loss_of_ones_own_is_read_by_the_shape():
    def weighted_binary_crossentropy(y, z):
        return keras.losses.sparse_categorical_crossentropy(y, z, from_logits=True)

    assert tasks.task_of_loss(weighted_binary_crossentropy) is None
    distiller = kd.Distiller(*pair(3))
    distiller.compile("sgd", weighted_binary_crossentropy)
    assert list(distiller.terms) == ["soft_target"]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("bce", "labels"),
        (keras.losses.binary_focal_crossentropy, "labels"),
        (
            functools.partial(keras.losses.binary_crossentropy, from_logits=True),
            "labels",
        ),
        (keras.losses.BinaryFocalCrossentropy(), "labels"),
        ("categorical_focal_crossentropy", "classes"),
        (keras.losses.CategoricalFocalCrossentropy, "classes"),
        ("kld", "classes"),
        ("mape", "values"),
        (keras.losses.CosineSimilarity(), "values"),
        (keras.losses.Dice(), None),
        ("no_such_loss", None),
        (None, None),
    ],
)
def test_tasks_of_losses(loss, expected):
    assert tasks.task_of_loss(loss) == expected


def test_a_subclass_of_keras_loss_is_of_its_kind():
    class Weighted(keras.losses.BinaryCrossentropy):
        pass

    assert tasks.task_of_loss(Weighted()) == "labels"
    assert tasks.task_of_loss("crossentropy", 1) == "labels"
    assert tasks.task_of_loss("crossentropy", 5) == "classes"


def test_one_of_several_outputs_follows_its_own_loss():
    def two(width, seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((6,))
        x = layers.Dense(width)(inputs)
        heads = {"box": layers.Dense(2)(x), "kind": layers.Dense(3)(x)}
        return keras.Model(inputs, heads)

    student, teacher = two(3, 0), two(5, 1)
    soft = kd.Term(kd.losses.SoftTarget(), "logits/kind", "logits/kind")
    regression = kd.Term(kd.losses.OutputRegression(), "logits/box", "logits/box")
    y = {"box": labels("values", 2), "kind": labels("classes", 3)}
    loss = {"box": "mse", "kind": SPARSE}
    sides = [x.predict(X, verbose=0) for x in (student, teacher)]
    found = parts(kd.Distiller(student, teacher, terms=[soft, regression]), loss, X, y)
    for name, part, formula in (
        ("kind", "soft_target", categorical),
        ("box", "output_regression", squares),
    ):
        expected = formula(*(x[name].astype("float64") for x in sides))
        np.testing.assert_allclose(found[part], expected, rtol=1e-4)
    wrong = kd.Term(kd.losses.SoftTarget(), "logits/box", "logits/box")
    with pytest.raises(ValueError, match=r"values of a regression.*OutputRegression"):
        parts(kd.Distiller(student, teacher, terms=[wrong]), loss, X, y)


@pytest.mark.parametrize(
    "loss",
    [
        kd.losses.SoftTarget(),
        kd.losses.ReverseSoftTarget(),
        kd.losses.JensenShannon(),
        kd.losses.DecoupledTarget(),
        kd.losses.PredictionCorrelation(),
        kd.losses.ConfidenceWeightedLabel(),
        kd.losses.LogitRegression(centred=True),
    ],
    ids=lambda loss: loss.name,
)
@pytest.mark.parametrize(
    ("compiled", "kind", "outputs", "right"),
    [
        (BINARY, "labels", 1, "BinarySoftTarget"),
        (BINARY, "labels", 3, "BinarySoftTarget"),
        ("mse", "values", 3, "OutputRegression"),
        (None, "labels", 1, "BinarySoftTarget"),
    ],
)
def test_a_softmax_that_does_not_fit_is_refused(loss, compiled, kind, outputs, right):
    distiller = kd.Distiller(*pair(outputs), terms=[kd.Term(loss)])
    with pytest.raises(ValueError, match=rf"does not fit the task.*kd.losses.{right}"):
        parts(distiller, compiled, X, labels(kind, outputs))


@pytest.mark.parametrize(
    ("compiled", "kind", "right"),
    [(SPARSE, "classes", "SoftTarget"), ("mse", "values", "OutputRegression")],
)
def test_bernoulli_of_classes_or_values_is_refused(compiled, kind, right):
    distiller = kd.Distiller(*pair(3), terms=[kd.Term(kd.losses.BinarySoftTarget())])
    with pytest.raises(ValueError, match=rf"does not fit the task.*kd.losses.{right}"):
        parts(distiller, compiled, X, labels(kind, 3))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("compiled", [BINARY, SPARSE, "mse"])
def test_regression_on_logits_fits_any_task(compiled, outputs):
    if compiled is SPARSE and outputs == 1:
        pytest.skip("one class")
    student, teacher = pair(outputs)
    expected = outputs / 2 * squares(*predictions(student, teacher))
    term = kd.Term(kd.losses.LogitRegression())
    kind = "classes" if compiled is SPARSE else "values"
    kind = "labels" if compiled is BINARY else kind
    y = labels(kind, outputs)
    found = parts(kd.Distiller(student, teacher, terms=[term]), compiled, X, y)
    np.testing.assert_allclose(found["logit_regression"], expected, rtol=1e-4)


def test_an_adapter_may_turn_one_logit_into_two():
    student, teacher = net(3, 1), net(8, 2, seed=1)
    two = layers.Lambda(lambda z: keras.ops.concatenate([0 * z, z], axis=-1))
    term = kd.Term(kd.losses.SoftTarget(), adapter=two)
    found = parts(
        kd.Distiller(student, teacher, terms=[term]), BINARY, X, labels("labels", 1)
    )
    z, expected = predictions(student, teacher)
    both = np.concatenate([0 * z, z], -1)
    np.testing.assert_allclose(
        found["soft_target"], categorical(both, expected), rtol=1e-4
    )


def test_one_item_has_no_ranking():
    with pytest.raises(ValueError, match="one item has no ranking"):
        kd.Distiller(*pair(1), terms=[kd.Term(kd.losses.Ranking())])


def test_gradients_of_a_softmax_loss_are_refused_for_one_logit():
    gradient = kd.Tap.input_gradient()
    term = kd.Term(kd.losses.GradientAttention(), gradient, gradient)
    distiller = kd.Distiller(*pair(1), terms=[term])
    with pytest.raises(ValueError, match=r"softmax cross-entropy.*first_class"):
        parts(distiller, BINARY, X, labels("labels", 1))


def test_a_second_compile_changes_the_term():
    student, teacher = pair(3)
    distiller = kd.Distiller(student, teacher)
    parts(distiller, SPARSE, X, labels("classes", 3))
    found = parts(distiller, BINARY, X, labels("labels", 3))
    assert set(found) == {"loss", "label_loss", "binary_soft_target"}
    found = parts(distiller, "mse", X, labels("values", 3))
    assert set(found) == {"loss", "label_loss", "output_regression"}
    expected = squares(*predictions(student, teacher))
    np.testing.assert_allclose(found["output_regression"], expected, rtol=1e-4)
    # Keras no longer tracks the terms of before.
    kept = [x for x in distiller.layers if "target" in x.name or "regr" in x.name]
    assert [x.name for x in kept] == ["output_regression"]
    same = distiller.terms["output_regression"]
    distiller.compile("sgd", "mae")
    assert distiller.terms["output_regression"] is same


def test_given_terms_stay():
    distiller = kd.Distiller(*pair(3), terms=[kd.Term(kd.losses.SoftTarget(2.0))])
    distiller.compile("sgd", BINARY)
    assert list(distiller.terms) == ["soft_target"]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("loss", ["mse", BINARY])
def test_a_saved_distiller_keeps_its_term(tmp_path, loss, compiled):
    student, teacher = pair(3)
    distiller = kd.Distiller(student, teacher)
    y = labels("values" if loss == "mse" else "labels", 3)
    before = parts(distiller, loss, X, y)
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras", compile=compiled)
    assert list(again.terms) == list(distiller.terms)
    again.set_teacher(teacher)
    assert parts(again, loss, X, y) == pytest.approx(before, rel=1e-5)
    again.compile("sgd", SPARSE)
    assert list(again.terms) == ["soft_target"]


class Subclassed(keras.Model):
    def __init__(self, outputs):
        super().__init__()
        self.out = layers.Dense(outputs)

    def call(self, x):
        return self.out(x)


@pytest.mark.parametrize(
    ("loss", "outputs", "name"),
    [(None, 1, "binary_soft_target"), ("mse", 2, "output_regression")],
)
def test_a_student_that_declares_no_inputs(loss, outputs, name):
    student, teacher = Subclassed(outputs), net(8, outputs, seed=1)
    data = (X,) if loss is None else (X, labels("values", outputs))
    assert name in parts(kd.Distiller(student, teacher), loss, *data)


def test_outputs_without_a_last_axis():
    def flat(width, seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((6,))
        x = layers.Dense(1)(layers.Dense(width)(inputs))
        return keras.Model(inputs, layers.Lambda(lambda z: z[:, 0])(x))

    student, teacher = flat(3, 0), flat(5, 1)
    z = [x[:, None] for x in predictions(student, teacher)]
    for loss, kind, name, formula in (
        (BINARY, "labels", "binary_soft_target", bernoulli),
        ("mse", "values", "output_regression", squares),
    ):
        y = labels(kind, 1)[:, 0]
        found = parts(kd.Distiller(student, teacher), loss, X, y)
        np.testing.assert_allclose(found[name], formula(*z), rtol=1e-4)


# --- other distillers ---


@pytest.mark.parametrize("refresh", [None, 2])
@pytest.mark.parametrize(
    ("loss", "kind", "outputs", "name", "formula"),
    [
        (BINARY, "labels", 1, "binary_soft_target", bernoulli),
        (BINARY, "labels", 3, "binary_soft_target", bernoulli),
        ("mse", "values", 3, "output_regression", squares),
        (SPARSE, "classes", 3, "soft_target", categorical),
    ],
)
def test_mutual(loss, kind, outputs, name, formula, refresh, tmp_path):
    peers = list(pair(outputs))
    peers[0].name, peers[1].name = "a", "b"
    mutual = kd.MutualDistiller(peers, refresh=refresh)
    y = labels(kind, outputs)
    found = parts(mutual, loss, X, y)
    first, second = predictions(*peers)
    arguments = () if formula is squares else (1.0,)
    a, b = formula(first, second, *arguments), formula(second, first, *arguments)
    np.testing.assert_allclose(found[f"a_{name}_from_b"], a, rtol=1e-4)
    np.testing.assert_allclose(found[f"b_{name}_from_a"], b, rtol=1e-4)
    total = found["a_label_loss"] + found["b_label_loss"] + a + b
    np.testing.assert_allclose(found["loss"], total, rtol=1e-4)
    mutual.save(tmp_path / "mutual.keras")
    again = keras.saving.load_model(tmp_path / "mutual.keras", compile=False)
    assert list(again.members[0].terms) == [f"{name}_from_b"]


@pytest.mark.parametrize(
    ("loss", "kind", "outputs", "formula"),
    [
        (BINARY, "labels", 1, bernoulli),
        (BINARY, "labels", 3, bernoulli),
        ("mse", "values", 3, squares),
        (SPARSE, "classes", 3, categorical),
    ],
)
def test_self_distiller(loss, kind, outputs, formula, tmp_path):
    distiller = kd.SelfDistiller(net(5, outputs), ["hidden"], temperature=2.0)
    found = parts(distiller, loss, X, labels(kind, outputs))
    z = distiller.predict(X, verbose=0)
    sides = [z[name].astype("float64") for name in ("hidden", "deepest")]
    arguments = () if formula is squares else (2.0,)
    np.testing.assert_allclose(
        found["soft_hidden"], formula(*sides, *arguments), rtol=1e-4
    )
    distiller.save(tmp_path / "self.keras")
    again = keras.saving.load_model(tmp_path / "self.keras", compile=False)
    kept = again.terms["soft_hidden"].term.loss
    assert type(kept) is type(distiller.terms["soft_hidden"].term.loss)


def test_mean_teacher():
    student = net(3, 1)
    distiller = kd.Distiller(student, kd.MeanTeacher(student))
    found = parts(distiller, BINARY, X, labels("labels", 1))
    np.testing.assert_allclose(found["binary_soft_target"], 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "kind", "outputs", "average", "formula"),
    [
        (BINARY, "labels", 1, sigmoid, bernoulli),
        (BINARY, "labels", 3, sigmoid, bernoulli),
        ("mse", "values", 3, None, squares),
    ],
)
def test_ensembles(loss, kind, outputs, average, formula):
    student, members = net(3, outputs), [net(8, outputs, seed) for seed in (1, 2)]
    distiller = kd.Distiller(student, kd.EnsembleTeacher(members))
    found = parts(distiller, loss, X, labels(kind, outputs))
    z, *others = predictions(student, *members)
    if average is None:
        teacher = sum(others) / 2
    else:
        p = sum(sigmoid(x / 4.0) for x in others) / 2
        teacher = 4.0 * np.log(p / (1 - p))
    name = next(name for name in found if name not in ("loss", "label_loss"))
    np.testing.assert_allclose(found[name], formula(z, teacher), rtol=1e-4)


def test_regression_on_logits_of_an_ensemble_averages_values():
    """A loss that fits any task takes outputs as the compiled loss says."""
    student, members = net(3, 3), [net(8, 3, seed) for seed in (1, 2)]
    term = kd.Term(kd.losses.LogitRegression())
    distiller = kd.Distiller(student, kd.EnsembleTeacher(members), terms=[term])
    found = parts(distiller, "mse", X, labels("values", 3))
    z, *others = predictions(student, *members)
    expected = 1.5 * squares(z, sum(others) / 2)
    np.testing.assert_allclose(found["logit_regression"], expected, rtol=1e-4)


@pytest.mark.parametrize("label_weight", [1.0, 0.0])
@pytest.mark.parametrize(
    ("loss", "kind", "name"),
    [(BINARY, "labels", "binary_soft_target"), ("mse", "values", "output_regression")],
)
def test_generations(loss, kind, name, label_weight):
    """Without labels too the compiled loss shows what the models predict."""
    chain = kd.fit_generations(
        lambda i: net(3, 3),
        2,
        X,
        labels(kind, 3),
        compiled={"optimizer": "sgd", "loss": loss},
        label_weight=label_weight,
        verbose=0,
    )
    assert name in chain[1].history


def test_a_stage_without_labels_knows_the_task():
    distiller = kd.Distiller(*pair(3))
    distiller.compile("sgd", BINARY)
    stage = kd.Stage([kd.Term(kd.losses.SoftTarget())], label_weight=0.0)
    with pytest.raises(ValueError, match="does not fit the task"):
        kd.fit_stages(distiller, [stage], X, labels("labels", 3), verbose=0)
