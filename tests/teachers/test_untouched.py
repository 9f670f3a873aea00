"""What training must leave as it is: the teacher's weights and state."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import linear, points

X, Y = points()
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fit(distiller, x=X, **arguments):
    distiller.compile(keras.optimizers.Adam(0.05), CROSS_ENTROPY)
    return distiller.fit(x, Y, batch_size=12, verbose=0, **arguments).history


def with_head(backbone, name):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3)(backbone(inputs)), name=name)


def test_a_student_cut_out_of_its_teacher_is_refused():
    inputs = keras.Input((4,))
    block = layers.Dense(5, "relu", name="block")(inputs)
    teacher = keras.Model(inputs, layers.Dense(3)(layers.Dense(5)(block)))
    student = keras.Model(inputs, layers.Dense(3)(block))
    for teachers in (teacher, kd.EnsembleTeacher([teacher, linear("other")])):
        with pytest.raises(ValueError, match=r"share 2 variable.*'block/kernel'"):
            fit(kd.Distiller(student, teachers))
    student.get_layer("block").trainable = False
    before, of_block = teacher.predict(X, verbose=0), student.weights[0].numpy()
    fit(kd.Distiller(student, teacher), epochs=3)
    np.testing.assert_array_equal(teacher.predict(X, verbose=0), before)
    np.testing.assert_array_equal(student.weights[0].numpy(), of_block)


def test_a_shared_embedding_is_refused():
    tokens = np.random.default_rng(0).integers(0, 9, (12, 5))
    table = layers.Embedding(9, 4)

    def net(width):
        inputs = keras.Input((5,), dtype="int32")
        hidden = layers.GlobalAveragePooling1D()(layers.Dense(width)(table(inputs)))
        return keras.Model(inputs, layers.Dense(3)(hidden))

    with pytest.raises(ValueError, match="share 1 variable"):
        fit(kd.Distiller(net(4), net(6)), tokens)


def test_shared_statistics_are_refused_while_they_are_updated():
    norm = layers.BatchNormalization(center=False, scale=False, name="norm")
    student, teacher = with_head(norm, "student"), with_head(norm, "teacher")
    with pytest.raises(ValueError, match=r"share 2 variable.*norm/moving_mean"):
        fit(kd.Distiller(student, teacher))
    norm.trainable = False
    before = teacher.predict(X, verbose=0)
    fit(kd.Distiller(student, teacher))
    np.testing.assert_array_equal(teacher.predict(X, verbose=0), before)


def test_peers_and_members_may_share():
    backbone = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh")])
    first, second = with_head(backbone, "first"), with_head(backbone, "second")
    mutual = kd.MutualDistiller([first, second])
    mutual.compile("sgd", CROSS_ENTROPY)
    start = backbone.get_weights()
    mutual.fit(X, Y, verbose=0)
    trained = backbone.get_weights()
    assert not np.array_equal(start[0], trained[0])
    fit(kd.Distiller(linear("student"), kd.EnsembleTeacher([first, second])))
    np.testing.assert_array_equal(backbone.get_weights()[0], trained[0])
    fit(kd.Distiller(first, kd.MeanTeacher(first)))
    assert not np.array_equal(backbone.get_weights()[0], trained[0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_stateful_teacher_is_refused(bidirectional):
    inputs = keras.Input(batch_shape=(6, 5, 3))
    layer = layers.LSTM(4, stateful=True, name="recurrent")
    layer = layers.Bidirectional(layer) if bidirectional else layer
    inner = keras.Model(inputs, layer(inputs))
    model = keras.Model(inputs, layers.Dense(3)(inner(inputs)), name="teacher")
    for make in (
        lambda: kd.Distiller(linear("student"), model),
        lambda: kd.EnsembleTeacher([model, linear("other")]),
        lambda: kd.MeanTeacher(model),
        lambda: kd.MutualDistiller([model, linear("other")], refresh=3),
    ):
        with pytest.raises(ValueError, match=r"is stateful .* stateful=False"):
            make()


def divergence(teacher, student):
    p, q = softmax(teacher, 4.0), softmax(student, 4.0)
    return 16 * (p * np.log(p / q)).sum(-1).mean()


def frozen(model):
    return kd.freeze(model, X)


@pytest.mark.parametrize("kind", ["model", "portions", "frozen", "ensemble"])
def test_a_teacher_that_changes_between_two_trainings(kind):
    student, model = linear("student"), linear("teacher")
    if kind == "frozen":
        model = frozen(model)
    teachers = {
        "portions": lambda: kd.Teacher(model, portions=3),
        "ensemble": lambda: kd.EnsembleTeacher([model, linear("other")]),
    }
    teacher = teachers.get(kind, lambda: model)()
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    z = student.predict(X, verbose=0)
    for scale in (1.0, 3.0):
        model.set_weights([scale * w for w in model.get_weights()])
        logits = [m.predict(X, verbose=0) for m in distiller.teacher.models]
        mean = sum(softmax(part, 4.0) for part in logits) / len(logits)
        expected = divergence(4.0 * np.log(mean), z)
        found = distiller.fit(X, batch_size=12, verbose=0).history["soft_target"]
        assert found[0] == pytest.approx(expected, rel=1e-4)
        logs = distiller.train_on_batch(X, return_dict=True)
        assert float(logs["soft_target"]) == pytest.approx(expected, rel=1e-4)
