"""Factor transfer: the distance of factors, and training the paraphraser."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.nets import conv_pair


def images(count=64):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 8, 8, 1)).astype("float32")


@pytest.fixture
def trained():
    keras.utils.set_random_seed(0)
    student, teacher = conv_pair()
    paraphraser = kd.adapters.Paraphraser(0.5)
    history = paraphraser.train_on(
        teacher,
        "stack2",
        images(),
        epochs=30,
        optimizer=keras.optimizers.Adam(0.01),
        verbose=0,
    )
    return student, teacher, paraphraser, history.history["loss"]


def test_equals_numpy():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 3, 2, 2, 4))
    paraphraser = kd.adapters.Paraphraser(trainable=False)
    values = [
        np.abs(t / np.linalg.norm(t) - s / np.linalg.norm(s)).mean()
        for t, s in zip(teacher, student, strict=True)
    ]
    loss = kd.losses.FactorTransfer(paraphraser, reduction=None)
    np.testing.assert_allclose(loss(teacher, student), values, rtol=1e-5)


def test_the_paraphraser_learns_and_the_teacher_stays(trained):
    _, teacher, paraphraser, history = trained
    assert history[-1] < 0.5 * history[0]
    untouched = conv_pair()[1]
    assert len(untouched.weights) == len(teacher.weights)
    assert teacher.trainable and len(paraphraser.weights) == 36
    assert not paraphraser.trainable_weights


def test_training_does_not_change_the_teacher():
    _, teacher = conv_pair()
    before = [np.array(w) for w in teacher.weights]
    kd.adapters.Paraphraser().train_on(teacher, "stack2", images(), epochs=1, verbose=0)
    for weight, old in zip(teacher.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_the_student_learns_the_factors_of_a_frozen_paraphraser(trained, tmp_path):
    student, teacher, paraphraser, _ = trained
    before = [np.array(w) for w in paraphraser.weights]
    term = kd.Term(kd.losses.FactorTransfer(paraphraser), "stack1", "stack2")
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.01))
    history = distiller.fit(images(), epochs=20, verbose=0).history["factor_transfer"]
    assert history[-1] < 0.7 * history[0]
    for weight, old in zip(paraphraser.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)

    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    again.set_teacher(teacher)
    (loaded,) = again.terms["factor_transfer"].teacher_adapters
    for weight, old in zip(loaded.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_bad_paraphrasers():
    untrained = kd.losses.FactorTransfer(kd.adapters.Paraphraser())
    student, teacher = conv_pair()
    term = kd.Term(untrained, "stack2", "stack2")
    distiller = kd.Distiller(student, teacher, terms=[term])
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="was not trained"):
        distiller.fit(np.ones((4, 8, 8, 1), "float32"), verbose=0)
    with pytest.raises(TypeError, match="got Dense"):
        kd.losses.FactorTransfer(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="got 0"):
        kd.adapters.Paraphraser(0)


def test_a_paraphraser_that_was_saved_frozen_stays_frozen(tmp_path):
    layer = kd.adapters.Paraphraser()
    model = keras.Sequential([keras.Input((4, 4, 6)), layer])
    layer.trainable = False
    model.save(tmp_path / "paraphraser.keras")
    [loaded] = keras.saving.load_model(tmp_path / "paraphraser.keras").layers
    assert not any(part.trainable for part in (loaded, loaded.encoder, loaded.decoder))
    assert not any(variable.trainable for variable in loaded.variables)
