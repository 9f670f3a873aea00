"""`kd.BackupAndRestore`, and what `fit` makes of Keras's callback of that name."""

import logging

import keras
import numpy as np
import pytest

import keras_distill as kd


@pytest.fixture
def distiller(nets, cross_entropy):
    distiller = kd.Distiller(*nets)
    distiller.compile("adam", cross_entropy)
    return distiller


def fit(distiller, images, callback, **arguments):
    distiller.fit(*images, batch_size=8, verbose=0, callbacks=[callback], **arguments)


def test_kerass_is_replaced_and_the_log_says_so(distiller, images, tmp_path, caplog):
    given = keras.callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
    with caplog.at_level(logging.INFO):
        fit(distiller, images, given)
    (record,) = caplog.records
    assert record.name == "keras_distill"
    for name in ("kd.BackupAndRestore", "keras.callbacks.BackupAndRestore", "b'"):
        assert name in record.getMessage()
    assert (tmp_path / "b" / "state.npz").exists()


def test_the_packages_own_is_silent_and_public(distiller, images, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        fit(distiller, images, kd.BackupAndRestore(tmp_path / "b"))
    assert not caplog.records
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "save_freq, expected", [("epoch", [2, 0]), (1, [1, 4]), (3, [1, 2])]
)
def test_what_is_saved_last(distiller, images, tmp_path, save_freq, expected):
    """Four batches an epoch: of two epochs, three batches were saved up to the sixth."""
    callback = kd.BackupAndRestore(tmp_path / "b", save_freq, delete_checkpoint=False)
    fit(distiller, images, callback, epochs=2, shuffle=False)
    with np.load(tmp_path / "b" / "state.npz") as arrays:
        *position, stopped = arrays["position"].tolist()
    # The last batch of an epoch is saved as that, before the epoch ends.
    assert position == expected and not stopped


def test_a_model_that_is_no_distiller_is_refused(nets, images, cross_entropy, tmp_path):
    student = nets[0]
    student.compile("adam", cross_entropy)
    with pytest.raises(TypeError, match=r"got Functional.*keras\.callbacks"):
        student.fit(*images, verbose=0, callbacks=[kd.BackupAndRestore(tmp_path / "b")])


@pytest.mark.parametrize(
    "arguments", [("",), ("folder", 0), ("folder", "batch"), ("folder", 2.5)], ids=str
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        kd.BackupAndRestore(*arguments)
