"""Progress of a scheme: a bar over its trainings, and a record from which it resumes."""

import contextlib
import json
import os
import pathlib

import keras

from keras_distill._backend import files
from keras_distill.training.backup import BackupAndRestore


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
