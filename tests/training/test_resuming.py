"""A run that was stopped ends as one that was not, to the bit."""

import os
import re

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.nets import conv_pair

STEPS = 4


class Stop(keras.callbacks.Callback):
    """Die after a number of steps."""

    def __init__(self, after):
        super().__init__()
        self.after = after
        self.seen = 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.after:
            raise KeyboardInterrupt


def make(**compiled):
    keras.utils.set_random_seed(1)
    student, teacher = conv_pair()
    noisy = keras.layers.Dropout(0.5)(student.output)
    student = keras.Model(student.input, noisy)
    rising = keras.optimizers.schedules.PolynomialDecay(0.1, 12, 1.0)
    terms = [
        kd.Term(kd.losses.SoftTarget(4.0), weight=rising),
        kd.Term(kd.losses.Hint(), student="stack1", teacher="stack2", weight=1.0),
    ]
    distiller = kd.Distiller(student, teacher, terms=terms)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(
        keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], **compiled
    )
    return distiller


def shuffled(images):
    return kd.data.batches(kd.data.Samples(*images), 8, shuffle=True)


def run(images, callbacks, **compiled):
    distiller = make(**compiled)
    history = distiller.fit(
        shuffled(images), epochs=4, verbose=0, callbacks=callbacks
    ).history
    return distiller, history


def assert_same(one, other):
    pairs = zip(
        [*one.variables, *one.optimizer.variables],
        [*other.variables, *other.optimizer.variables],
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_array_equal(np.array(a), np.array(b), err_msg=a.path)


@pytest.mark.parametrize(
    ("save_freq", "stop"),
    [
        pytest.param("epoch", 11, marks=pytest.mark.long),
        (3, 11),
        pytest.param(1, 8, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_ends_as_an_undisturbed_one(images, tmp_path, save_freq, stop):
    def backup(name="backup"):
        return keras.callbacks.BackupAndRestore(tmp_path / name, save_freq)

    whole, history = run(images, [backup("whole")])
    with pytest.raises(KeyboardInterrupt):
        run(images, [backup(), Stop(stop)])
    again, rest = run(images, [backup()])
    assert_same(whole, again)
    assert int(again.optimizer.iterations) == 4 * STEPS
    assert not (tmp_path / "backup").exists()
    # The means of the epoch that was gone on with are those of all its batches.
    for name, values in rest.items():
        np.testing.assert_allclose(values, history[name][-len(values) :], rtol=1e-6)
    assert len(rest["loss"]) == 4 - (stop - 1) // STEPS


@pytest.mark.long
def test_several_steps_at_once(images, tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "whole", 2)
    whole, _ = run(images, [backup], steps_per_execution=2)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", 2)
    with pytest.raises(KeyboardInterrupt):
        run(images, [backup, Stop(3)], steps_per_execution=2)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", 2)
    again, _ = run(images, [backup], steps_per_execution=2)
    assert_same(whole, again)


@pytest.mark.long
def test_fit_goes_on_as_usual_afterwards(images, tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", 1)
    with pytest.raises(KeyboardInterrupt):
        run(images, [backup, Stop(5)])
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", 1)
    again, _ = run(images, [backup])
    again.fit(shuffled(images), initial_epoch=4, epochs=5, verbose=0)
    assert int(again.optimizer.iterations) == 5 * STEPS


@pytest.mark.long
def test_data_that_go_on_without_end(images, tmp_path):
    def fit(callbacks):
        distiller = make()
        endless = shuffled(images).repeat()
        distiller.fit(
            endless, epochs=3, steps_per_epoch=3, verbose=0, callbacks=callbacks
        )
        return distiller

    whole = fit([])
    folder = tmp_path / "backup"
    with pytest.raises(KeyboardInterrupt):
        fit([keras.callbacks.BackupAndRestore(folder, 1), Stop(5)])
    assert_same(whole, fit([keras.callbacks.BackupAndRestore(folder, 1)]))


@pytest.mark.long
def test_steps_that_are_counted_on_data_with_an_end(images, tmp_path):
    def fit(folder, *callbacks):
        distiller, backup = make(), keras.callbacks.BackupAndRestore(folder)
        distiller.fit(
            shuffled(images),
            epochs=3,
            steps_per_epoch=STEPS,
            verbose=0,
            callbacks=[backup, *callbacks],
        )
        return distiller

    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "backup", Stop(2 * STEPS + 1))
    again = fit(tmp_path / "backup")
    assert int(again.optimizer.iterations) == 3 * STEPS
    assert_same(whole, again)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """Flip a bit in the middle, which lies in some weight."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def double(tmp_path, name="backup"):
    folder = tmp_path / name
    return keras.callbacks.BackupAndRestore(folder, 2, double_checkpoint=True)


@pytest.mark.parametrize("damage", [cut, pytest.param(flip, marks=pytest.mark.long)])
def test_a_damaged_backup_gives_way_to_the_one_before(images, tmp_path, damage):
    whole, _ = run(images, [double(tmp_path, "whole")])
    with pytest.raises(KeyboardInterrupt):
        run(images, [double(tmp_path), Stop(9)])
    damage(tmp_path / "backup" / "state.npz")
    with pytest.warns(UserWarning, match="state.npz' is damaged"):
        again, rest = run(images, [double(tmp_path)])
    assert_same(whole, again)
    # The newest was made after two epochs, the one before it in the second.
    assert len(rest["loss"]) == 3


def test_damaged_backups_without_another_are_refused(images, tmp_path):
    newest, previous = (tmp_path / "backup" / x for x in ("state.npz", "previous.npz"))
    with pytest.raises(KeyboardInterrupt):
        run(images, [double(tmp_path), Stop(5)])
    flip(newest)
    kept = previous.read_bytes()
    with pytest.warns(UserWarning), pytest.raises(KeyboardInterrupt):
        run(images, [double(tmp_path), Stop(4)])
    # The good one was not given up for the damaged one.
    assert previous.read_bytes() == kept
    cut(newest)
    cut(previous)
    said = r"damaged \(.*\) and .*previous.npz' is damaged"
    with pytest.raises(ValueError, match=said):
        run(images, [double(tmp_path)])
    previous.unlink()
    said = "there is no other backup. Put a copy of the file in its place, or remove"
    with pytest.raises(ValueError, match=re.escape(said)):
        run(images, [double(tmp_path)])


@pytest.mark.long
def test_initial_epoch_with_a_backup(images, tmp_path):
    """As one goes on training a loaded distiller: `initial_epoch` is in the command."""

    def fit(folder, stop=()):
        distiller = make()
        history = distiller.fit(
            shuffled(images),
            initial_epoch=3,
            epochs=5,
            verbose=0,
            callbacks=[keras.callbacks.BackupAndRestore(tmp_path / folder, 3), *stop],
        ).history
        return distiller, history

    whole, history = fit("whole")
    assert int(whole.optimizer.iterations) == 2 * STEPS
    # Saved after the third of four steps of epoch 3, then after the second of epoch 4.
    for stop, position in ((4, [3, 3]), (7, [4, 2])):
        with pytest.raises(KeyboardInterrupt):
            fit("backup", [Stop(stop)])
        saved = np.load(tmp_path / "backup" / "state.npz")["position"]
        assert list(saved) == [*position, 0]
    again, rest = fit("backup")
    assert_same(whole, again)
    for name, values in rest.items():
        np.testing.assert_allclose(values, history[name][-len(values) :], rtol=1e-6)
    assert not (tmp_path / "backup").exists()


def test_arrays_that_fit_shuffles_are_refused(images, tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", 2)
    with pytest.raises(ValueError, match="order of data that `fit` shuffles"):
        make().fit(*images, callbacks=[backup], verbose=0)
    make().fit(*images, callbacks=[backup], shuffle=False, verbose=0)


@pytest.mark.long
def test_parts_that_fit_shuffles_are_refused(images, tmp_path):
    class Parts(keras.utils.PyDataset):
        def __len__(self):
            return STEPS

        def __getitem__(self, i):
            return tuple(x[8 * i : 8 * i + 8] for x in images)

    def fit(callbacks, **arguments):
        distiller = make()
        distiller.fit(Parts(), epochs=2, verbose=0, callbacks=callbacks, **arguments)
        return distiller

    def backup(name="backup"):
        return keras.callbacks.BackupAndRestore(tmp_path / name, 3)

    with pytest.raises(ValueError, match="order of data that `fit` shuffles"):
        fit([backup()])
    with pytest.raises(KeyboardInterrupt):
        fit([backup(), Stop(6)], shuffle=False)
    whole = fit([backup("whole")], shuffle=False)
    assert_same(whole, fit([backup()], shuffle=False))


def test_a_backup_of_another_model_is_refused(images, tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", 1)
    with pytest.raises(KeyboardInterrupt):
        run(images, [backup, Stop(2)])
    student, teacher = conv_pair(student_filters=3)
    other = kd.Distiller(student, teacher)
    other.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", 1)
    with pytest.raises(ValueError, match="of another model, optimizer or terms"):
        other.fit(shuffled(images), verbose=0, callbacks=[backup])
