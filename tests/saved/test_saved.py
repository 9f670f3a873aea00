"""Files that earlier versions wrote load, and mean the same."""

import pathlib
import shutil

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.saved.write import LOSS, X, Y, net

FOLDER = pathlib.Path(__file__).with_name("version_0_1_0")


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "predictions.npz") as arrays:
        return dict(arrays)


def load(name):
    return keras.saving.load_model(FOLDER / f"{name}.keras")


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_distiller_predicts_and_trains_on(expected):
    distiller = load("distiller")
    close(distiller.predict(X, verbose=0), expected["distiller"])
    close(
        distiller.terms["hint"].student_adapters[0].get_weights()[0],
        expected["adapter"],
    )
    close(distiller.terms["soft_target"].temperature, expected["temperature"])
    assert distiller.terms["gradient_attention"].term.student[0].is_gradient
    distiller.set_teacher(net(3, "teacher"))
    assert distiller.optimizer.iterations == 6
    history = distiller.fit(X, Y, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("name", ["mutual", "self", "ensemble"])
def test_other_models_predict(name, expected):
    found = load(name).predict(X, verbose=0)
    found = found["norm"] if isinstance(found, dict) else found
    close(np.stack(found), expected[name])


def test_a_cache_is_joined(expected):
    teacher = load("teacher")
    with pytest.warns(UserWarning, match="of an earlier version"):
        cached = kd.CachedTeacher(FOLDER / "cache", teacher, top_k=2, temperature=4.0)
    close(cached.read(np.arange(12))["logits"]["logits"], expected["cached"])
    samples = kd.data.Samples(X, Y)
    train = kd.data.batches(samples, 4, sample_ids=True)
    distiller = kd.Distiller(net(2, "student"), cached, student_inputs="image")
    distiller.compile("sgd", LOSS)
    distiller.fit(cached.join(train), verbose=0)


def test_metadata_of_a_teacher():
    metadata = kd.Metadata.load(FOLDER / "metadata.npz")
    metadata.check_teacher(load("teacher"))
    assert (
        kd.reconstruct(load("teacher"), metadata, 4, steps=2, verbose=0).shape[0] == 4
    )


def test_spectra_without_counts_keep_all_that_they_have():
    metadata = kd.Metadata.load(FOLDER / "spectra.npz")
    assert set(metadata.arrays) == {
        f"0/{x}" for x in ("basis", "places", "values", "sizes")
    }
    (goal,) = metadata.goals(12, 0, np.random.default_rng(0))
    assert goal.layers == ("conv", "logits")
    np.testing.assert_array_equal((goal.weights > 0).sum(-1), 4)
    found = metadata.targets(12, 0, np.random.default_rng(0))
    assert found["conv"].shape == (12, 12) and found["conv"].min() < 0.0
    kd.reconstruct(load("teacher"), metadata, 4, steps=2, verbose=0)


def test_a_backup_is_resumed(tmp_path):
    """With five of six steps done, the weights are those of the run that was stopped."""
    shutil.copytree(FOLDER / "backup", tmp_path / "backup")
    student = net(2, "student")
    distiller = kd.Distiller(student, net(3, "teacher"))
    distiller.compile("adam", LOSS, metrics=["accuracy"])
    stopped = net(2, "stopped")
    stopped.load_weights(FOLDER / "stopped.weights.h5")
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append((batch, [np.array(w) for w in student.get_weights()]))

    backup = kd.BackupAndRestore(tmp_path / "backup", save_freq=1)
    distiller.fit(
        X,
        Y,
        batch_size=4,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[backup, Look()],
    )
    batch, weights = seen[-1]
    assert (batch, len(seen), distiller.optimizer.iterations) == (2, 3, 6)
    for found, expected in zip(weights, stopped.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
