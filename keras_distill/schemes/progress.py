"""What a scheme has done: shown while it runs, and kept so that it is not done twice."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import keras


class Progress(keras.callbacks.Callback):
    """One bar over the epochs of all trainings of a scheme.

    Args:
        epochs: of all together.
        verbose: 0 for nothing, 1 or `"auto"` for the bar, 2 for a line an epoch.
    """

    async_safe = True

    def __init__(self, epochs: int, verbose):
        super().__init__()
        self.done = self.begun = self.end = 0
        self.verbose = 1 if verbose == "auto" else verbose
        self.bar = keras.utils.Progbar(
            epochs, verbose=self.verbose, stateless_metrics=(), unit_name="epoch"
        )

    def begin(self, name: str, epochs: int) -> None:
        """Say what is trained next, for so many epochs at most."""
        self.begun, self.end = self.done, self.done + epochs
        if self.verbose:
            print(f"\n{name}")

    def on_epoch_end(self, epoch, logs=None):
        """Move the bar; after a training that went on, by what was done before too."""
        self.move_to(self.begun + epoch + 1, logs)

    def finish(self) -> None:
        """Move the bar past epochs that a stopping rule left out."""
        if self.done < self.end:
            self.move_to(self.end, {})

    def move_to(self, done: int, logs=None) -> None:
        """Show that so many epochs of all are done."""
        self.done = done
        self.bar.update(done, values=list((logs or {}).items()))


class Ledger:
    """Which trainings of a scheme are done, with the weights that they ended in.

    A training that is under way has a backup of its own, an epoch old at most. Without
    a folder nothing is kept.

    Args:
        folder: of the scheme, or None.
        plan: what the scheme consists of, as JSON can hold it.

    Raises:
        ValueError: the folder is of another scheme.
    """

    def __init__(self, folder: str | os.PathLike | None, plan):
        self.folder = None if folder is None else pathlib.Path(folder)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "plan.json"
        if not file.exists():
            _write(file, plan)
        found = json.loads(file.read_text())
        if found != json.loads(json.dumps(plan)):
            raise ValueError(
                f"The folder '{self.folder}' holds a scheme of other parts: {found}, not "
                f"{plan}. Go on with those, or give another folder."
            )

    def once(self, part: int, model: keras.Model, train) -> dict:
        """Train, unless that was done; then give the model the weights it ended in.

        Args:
            part: which training of the scheme, from 0.
            model: what is trained, built.
            train: from a list of callbacks to a history.

        Returns:
            The history, by name.
        """
        if self.folder is None:
            return train([]).history
        weights = self.folder / f"{part}.weights.h5"
        history = self.folder / f"{part}.json"
        if history.exists():
            model.load_weights(weights)
            return json.loads(history.read_text())
        under_way = self.folder / f"{part}.backup"
        backup = keras.callbacks.BackupAndRestore(under_way, delete_checkpoint=False)
        found = train([backup]).history
        found = {name: [float(x) for x in values] for name, values in found.items()}
        unfinished = self.folder / f"{part}.unfinished.weights.h5"
        model.save_weights(unfinished)
        os.replace(unfinished, weights)
        _write(history, found)
        shutil.rmtree(under_way, ignore_errors=True)
        return found


def _write(file: pathlib.Path, value) -> None:
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value))
    os.replace(unfinished, file)
