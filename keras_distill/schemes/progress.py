"""Progress of a scheme: a bar over its trainings, and a record from which it resumes."""

import contextlib
import json
import os
import pathlib

import keras

from keras_distill._backend import files
from keras_distill._backend.progress_bar import ProgressBar
from keras_distill.training.backup import BackupAndRestore


class Progress(keras.callbacks.Callback):
    """One bar over the epochs of all trainings of a scheme, with the time left."""

    async_safe = True

    def __init__(self, epochs: int, verbose):
        super().__init__()
        self.begun = 0
        # Steps of the epoch before, where the data do not have a length.
        self.steps = None
        self.logs = {}
        self.bar = ProgressBar(epochs, "epochs", 1 if verbose == "auto" else verbose)

    @contextlib.contextmanager
    def training(self, name: str, epochs: int):
        """Show a training; then advance past epochs that early stopping left out."""
        self.bar.title, self.logs, self.steps = name, {}, None
        end = self.begun + epochs
        self.bar.update(self.begun, milestone=False)
        yield
        self._skip_to(end)
        self.begun = end
        if end and end >= self.bar.total:
            self.bar.finish()

    def on_epoch_begin(self, epoch, logs=None):
        """Advance past the epochs of an earlier run."""
        self._skip_to(self.begun + epoch)
        self.epoch, self.batches = epoch, 0

    def on_train_batch_end(self, batch, logs=None):
        """Advance by a part of an epoch."""
        self.batches = max(self.batches, batch + 1)
        steps = (self.params or {}).get("steps") or self.steps
        if steps:
            # Complete only once the validation is done.
            part = min(self.batches / steps, 0.999)
            done = self.begun + self.epoch + part
            self.bar.update(done, self.logs, milestone=False)

    def on_epoch_end(self, epoch, logs=None):
        """Advance the bar; a resumed training counts the epochs before it too."""
        self.steps, self.logs = self.batches or None, logs or {}
        self.bar.update(self.begun + epoch + 1, self.logs)

    def move_to(self, done: int) -> None:
        """Show that `done` epochs of the scheme are complete."""
        self.bar.update(done)

    def _skip_to(self, done: int) -> None:
        if done > self.bar.done:
            self.bar.skip(done - self.bar.done)


class Ledger:
    """Record of the trainings of a scheme, from which it resumes.

    Each training has a backup of its own, at most one epoch old, that stays when it is
    complete. Without a folder, nothing is kept. A folder that holds a scheme of another
    plan is an error.
    """

    def __init__(self, folder: str | os.PathLike | None, plan):
        self.folder = None if folder is None else pathlib.Path(folder)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "plan.json"
        if not file.exists():
            _write_json(file, plan)
        files.remove_left_over(self.folder)
        saved = files.read_json(
            file, "Remove the folder to begin the scheme anew, or pass another one."
        )
        if saved != json.loads(json.dumps(plan)):
            raise ValueError(
                f"The folder '{self.folder}' holds another scheme: expected {plan}, found "
                f"{saved}. Resume that scheme, or pass another folder."
            )

    def once(self, part: int, train) -> dict:
        """Train, from where an earlier call stopped, and return the whole history.

        A complete training runs no epoch, but restores all that later ones depend on:
        weights, random states, and the position in the data.

        Args:
            part: index of the training in the scheme.
            train: function from a list of callbacks to a `keras.callbacks.History`.
        """
        if self.folder is None:
            return train([]).history
        epochs = _Epochs(self.folder / f"{part}.json")
        folder = self.folder / f"{part}.backup"
        train([epochs, BackupAndRestore(folder, delete_checkpoint=False)])
        return epochs.history()


class _Epochs(keras.callbacks.Callback):
    """Keeps the logs of each epoch in a file."""

    def __init__(self, file: pathlib.Path):
        super().__init__()
        self.file = file
        remedy = "Write [] to it to go on without the logs of the epochs before."
        self.logs = files.read_json(file, remedy) if file.exists() else []
        if not _are_logs(self.logs):
            raise ValueError(f"'{file}' has no logs of epochs. {remedy}")

    def on_epoch_end(self, epoch, logs=None):
        """Write the logs, also of an epoch that runs again."""
        logs = {name: float(value) for name, value in (logs or {}).items()}
        self.logs[epoch:] = [logs]
        _write_json(self.file, self.logs)

    def history(self) -> dict:
        """Return the logs as lists by name."""
        return {n: [logs[n] for logs in self.logs if n in logs] for n in self.names()}

    def names(self) -> list[str]:
        """Return the names in the logs of any epoch."""
        return list(dict.fromkeys(name for logs in self.logs for name in logs))


def _are_logs(value) -> bool:
    """Whether a value is a list of dicts of numbers."""
    return isinstance(value, list) and all(
        isinstance(logs, dict) and all(isinstance(x, float) for x in logs.values())
        for logs in value
    )


def _write_json(file: pathlib.Path, value) -> None:
    with files.write_then_rename(file) as beside:
        beside.write_text(json.dumps(value))
