"""Progress of a scheme: a bar over its trainings, and a record from which it resumes."""

import contextlib
import json
import os
import pathlib
import shutil

import keras

from keras_distill._backend import files
from keras_distill.training.backup import BackupAndRestore
from keras_distill.training.fit import Fitting


class Progress(keras.callbacks.Callback):
    """One bar over the epochs of all trainings of a scheme."""

    async_safe = True

    def __init__(self, epochs: int, verbose):
        super().__init__()
        self.done = self.begun = 0
        self.verbose = 1 if verbose == "auto" else verbose
        self.bar = keras.utils.Progbar(
            epochs, verbose=self.verbose, stateless_metrics=(), unit_name="epoch"
        )

    @contextlib.contextmanager
    def training(self, name: str, epochs: int):
        """Announce a training; then advance past epochs that early stopping left out."""
        self.begun, end = self.done, self.done + epochs
        if self.verbose:
            print(f"\n{name}")
        yield
        if self.done < end:
            self.move_to(end, {})

    def on_epoch_end(self, epoch, logs=None):
        """Advance the bar; a resumed training counts the epochs before it too."""
        self.move_to(self.begun + epoch + 1, logs)

    def move_to(self, done: int, logs=None) -> None:
        """Show that `done` epochs of the scheme are complete."""
        self.done = done
        self.bar.update(done, values=list((logs or {}).items()))


class Ledger:
    """Record of the complete trainings of a scheme, with their final weights.

    A training in progress has a backup of its own, at most one epoch old. Without a
    folder, nothing is kept. A folder that holds a scheme of another plan is an error.
    """

    def __init__(self, folder: str | os.PathLike | None, plan):
        self.folder = None if folder is None else pathlib.Path(folder)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "plan.json"
        if not file.exists():
            _write_json(file, plan)
        saved = json.loads(file.read_text())
        if saved != json.loads(json.dumps(plan)):
            raise ValueError(
                f"The folder '{self.folder}' holds another scheme: expected {plan}, found "
                f"{saved}. Resume that scheme, or pass another folder."
            )

    def once(self, part: int, model: keras.Model, train) -> dict:
        """Train a built model, or load its final weights, and return the history.

        `part` is the index of the training in the scheme, and `train` a function from a
        list of callbacks to a `keras.callbacks.History`.
        """
        if self.folder is None:
            return train([]).history
        weights = self.folder / f"{part}.weights.h5"
        history = self.folder / f"{part}.json"
        if history.exists():
            model.load_weights(weights)
            return json.loads(history.read_text())
        in_progress = self.folder / f"{part}.backup"
        plain = keras.callbacks.BackupAndRestore
        kind = BackupAndRestore if isinstance(model, Fitting) else plain
        backup = kind(in_progress, delete_checkpoint=False)
        logs = train([backup]).history
        logs = {name: [float(x) for x in values] for name, values in logs.items()}
        with files.write_then_rename(weights) as beside:
            model.save_weights(beside)
        _write_json(history, logs)
        shutil.rmtree(in_progress, ignore_errors=True)
        return logs


def _write_json(file: pathlib.Path, value) -> None:
    with files.write_then_rename(file) as beside:
        beside.write_text(json.dumps(value))
