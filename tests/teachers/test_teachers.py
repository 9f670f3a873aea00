"""Teachers return knowledge and do not change; ensembles average it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps import Tap
from tests.formulas import softmax

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
LOGITS = Tap("logits")


def net(name="net", classes=3):
    inputs = keras.Input((4,))
    x = layers.BatchNormalization(name="norm")(inputs)
    x = layers.Dropout(0.5)(layers.Dense(5, "relu", name="hidden")(x))
    return keras.Model(inputs, layers.Dense(classes, name="head")(x), name=name)


def test_knowledge_is_of_the_inference_form_and_changes_nothing():
    model = net()
    before = [np.array(v) for v in model.variables]
    knowledge = kd.Teacher(model)(X, [LOGITS, Tap("hidden")])
    np.testing.assert_allclose(knowledge[LOGITS], model(X, training=False))
    again = kd.Teacher(model)(X, [LOGITS])[LOGITS]
    np.testing.assert_array_equal(knowledge[LOGITS], again)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(new))


def test_fit_does_not_change_the_teacher():
    """Weights, statistics, flags and penalties, also of a part that is frozen."""
    model = net("teacher")
    model.get_layer("head").kernel.regularizer = keras.regularizers.L2(0.1)
    model.get_layer("hidden").trainable = False
    flags = [layer.trainable for layer in flatten_layers(model)]
    before = [np.array(v) for v in model.variables]
    penalties = [float(loss) for loss in model.losses]
    assert len(penalties) == 1
    term = kd.Term(kd.losses.Hint(), student="hidden", teacher="hidden")
    distiller = kd.Distiller(net("student"), model, terms=[term], label_weight=0.0)
    distiller.compile("adam")
    distiller.fit(X, epochs=2, verbose=0)
    assert [layer.trainable for layer in flatten_layers(model)] == flags
    assert [float(loss) for loss in model.losses] == penalties
    assert not any("call" in layer.__dict__ for layer in flatten_layers(model))
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(new))


@pytest.mark.parametrize("several", [False, True])
def test_no_gradient_comes_through(several):
    model = net("a")
    teacher = kd.EnsembleTeacher([model, net("b")]) if several else kd.Teacher(model)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = teacher.logits(teacher(x, [LOGITS])[LOGITS], 2.0)
    assert all(
        g is None for g in tape.gradient(logits, [x, *model.trainable_variables])
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("weights", [None, [3.0, 1.0]])
@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_the_average_is_numpys(temperature, weights, average):
    models = [net("a"), net("b")]
    teacher = kd.EnsembleTeacher(models, average, weights=weights)
    logits = teacher.logits(teacher(X, [LOGITS])[LOGITS], temperature)
    z = [np.array(model(X), "float64") for model in models]
    w = np.array([0.5, 0.5] if weights is None else [0.75, 0.25])
    if average == "arithmetic":
        expected = w[0] * softmax(z[0] / temperature) + w[1] * softmax(
            z[1] / temperature
        )
    else:
        expected = softmax((w[0] * z[0] + w[1] * z[1]) / temperature)
    found = softmax(np.array(logits, "float64") / temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_an_average_of_sequences(average):
    teacher = kd.EnsembleTeacher([net(), net(), net()], average, weights=[1, 2, 5])
    z = np.random.default_rng(0).normal(size=(3, 2, 4, 5)) * 3
    w = np.array([0.125, 0.25, 0.625]).reshape(3, 1, 1, 1)
    found = softmax(np.array(teacher.logits(list(z), 2.0), "float64") / 2)
    if average == "arithmetic":
        expected = (w * softmax(z / 2)).sum(0)
    else:
        expected = softmax((w * z).sum(0) / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_average_of_sequences_and_of_large_logits():
    teacher = kd.EnsembleTeacher([net("a"), net("b")])
    z = np.random.default_rng(0).normal(size=(2, 2, 3, 4)) * 1e4
    logits = np.array(teacher.logits([z[0], z[1]], 0.1))
    assert logits.shape == (2, 3, 4) and np.isfinite(logits).all()


def test_a_members_layer():
    models = [net("a"), net("b")]
    teacher = kd.EnsembleTeacher(models)
    tap = Tap("1/hidden")
    expected = kd.Teacher(models[1])(X, [Tap("hidden")])[Tap("hidden")]
    np.testing.assert_allclose(teacher(X, [LOGITS, tap])[tap], expected)
    with pytest.raises(ValueError, match="'0/hidden'"):
        teacher(X, [Tap("hidden")])


def test_a_distiller_learns_from_an_ensemble():
    student, models = net("student"), [net("a"), net("b")]
    teacher = kd.EnsembleTeacher(models)
    term = kd.Term(kd.losses.SoftTarget(2.0))
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.03))

    def gap():
        target = sum(softmax(np.array(m(X), "float64") / 2) for m in models) / 2
        return np.abs(softmax(np.array(student(X), "float64") / 2) - target).mean()

    before = gap()
    distiller.fit(np.tile(X, (150, 1)), batch_size=6, shuffle=False, verbose=0)
    assert gap() < 0.5 * before


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: kd.EnsembleTeacher([net()]), "two or more"),
        (lambda: kd.EnsembleTeacher([net(), net()], "median"), "'median'"),
        (lambda: kd.EnsembleTeacher([net(), net()], weights=[1.0]), "positive weights"),
        (
            lambda: kd.EnsembleTeacher([net(), net()], weights=[1, -1]),
            "positive weights",
        ),
        (
            lambda: kd.Distiller(net(), kd.EnsembleTeacher([net(), net(classes=4)])),
            "same classes",
        ),
    ],
)
def test_bad_ensembles(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("path", ["hidden", "2/hidden", "1/", "x/hidden"])
def test_a_members_layer_needs_the_members_index(path):
    teacher = kd.EnsembleTeacher([net("a"), net("b")])
    with pytest.raises(ValueError, match="member 0 to 1"):
        teacher(X, [Tap(path)])


def test_a_teacher_is_a_built_model():
    unbuilt = keras.Sequential([layers.Dense(3)], name="fresh")
    with pytest.raises(ValueError, match="'fresh' is not built"):
        kd.Teacher(unbuilt)
    with pytest.raises(ValueError, match="'fresh' is not built"):
        kd.EnsembleTeacher([net(), unbuilt])
    with pytest.raises(
        TypeError, match=r"keras\.Model, a kd\.Teacher or a kd\.Ens.*got function"
    ):
        kd.Teacher(softmax)
    model = net()
    with pytest.raises(ValueError, match="different models"):
        kd.EnsembleTeacher([model, model])
