"""Backups from which a killed run continues, to the batch and to the bit."""

import logging
import os
import shutil
import warnings

import keras
import numpy as np

from keras_distill._backend import files
from keras_distill._backend.callback_states import (
    callback_states,
    has_state,
    set_callback_states,
)
from keras_distill._backend.jax_state import sync_variables
from keras_distill.strategies.replicas import is_first_worker
from keras_distill.training.random_states import (
    random_states,
    set_random_states,
    set_torch_states,
)

# What a file has besides variables: states of generators as the epoch began and at the
# moment of the backup, and of callbacks.
_BEGIN, _NOW, _CALLBACK = "begin ", "now ", "callback "


class BackupAndRestore(keras.callbacks.Callback):
    """Back up the training of a distiller, and continue it when `fit` is called again.

    Keras's callback of this name saves weights and optimizer, and repeats the epoch that
    was interrupted. This one also saves the states of random layers, of Python's, NumPy's
    and torch's generators and of Keras's callbacks (`EarlyStopping`, `ReduceLROnPlateau`,
    `ModelCheckpoint`, `SwapEMAWeights`), the metrics and the number of batches, in one
    file that is whole at any moment, so that a run that was killed ends equal, bit by
    bit, to one that was not. Across workers the first one writes, and all read. `fit`
    puts it in the place of Keras's, and behind all other callbacks.

    Args:
        backup_dir: a folder for this run alone, which all workers see.
        save_freq: `"epoch"` (default), or a number of batches.
        double_checkpoint: keep the backup before the newest too. Default False.
        delete_checkpoint: remove the folder when the training ends. Default True.

    Raises:
        TypeError: `fit` was called on a model that is not a distiller.
        ValueError: no folder, or another `save_freq`; as `fit` begins, a backup that is
            damaged or of another model.

    Example:
        >>> backup = kd.BackupAndRestore("runs/backup", save_freq=100)
        >>> distiller.fit(train, epochs=2, callbacks=[backup])
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike,
        save_freq: int | str = "epoch",
        *,
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ):
        super().__init__()
        if not backup_dir:
            raise ValueError("backup_dir is a folder for the backups; got none.")
        is_count = isinstance(save_freq, int) and not isinstance(save_freq, bool)
        if save_freq != "epoch" and not (is_count and save_freq > 0):
            raise ValueError(
                f"save_freq is 'epoch' or a number of batches; got {save_freq!r}."
            )
        self.backup_dir, self.save_freq = os.fspath(backup_dir), save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._path = os.path.join(self.backup_dir, "state.npz")
        self._previous = os.path.join(self.backup_dir, "previous.npz")
        # The callbacks whose states are saved, in their order, and whether an epoch reads
        # on where the one before ended.
        self.others, self.reads_on = [], False
        self._restored, self._begin = None, {}
        self._epoch = self._batches = self._unsaved = 0
        self._newest_is_damaged = self._was_searched = False
        self._sets_torch_again = False

    def set_model(self, model):
        """Check that the model is a distiller, or that its data are resumed."""
        if not hasattr(model, "check_fit") and not self._was_searched:
            raise TypeError(
                "kd.BackupAndRestore backs up the training of a distiller; got "
                f"{type(model).__name__}. Use keras.callbacks.BackupAndRestore."
            )
        super().set_model(model)

    def find(self) -> tuple[int, int, bool]:
        """Read the backup, if there is one.

        Returns:
            Its epoch, the batches done in it, and whether a callback had stopped the run.

        A newest file that is damaged gives way to the one before, which
        `double_checkpoint` keeps.

        Raises:
            ValueError: the files that exist are damaged.
        """
        self._was_searched, damages = True, []
        files.remove_left_over(self.backup_dir)
        for path in filter(os.path.exists, (self._path, self._previous)):
            try:
                self._restored = files.read_arrays(path, _check_position)
            except files.Damaged as error:
                damages.append(f"'{path}' is damaged ({error})")
                continue
            if damages:
                warnings.warn(f"{damages[0]}; continuing from '{path}'.", stacklevel=4)
            self._newest_is_damaged = bool(damages)
            return self._position()
        if damages:
            raise ValueError(
                f"The run cannot be resumed: {' and '.join(damages)}, and there is no "
                "other backup. Put a copy of the file in its place, or remove the folder "
                "to start anew. BackupAndRestore(..., double_checkpoint=True) keeps the "
                "backup before the newest too."
            )
        return 0, 0, False

    def _position(self) -> tuple[int, int, bool]:
        # Early backups do not say whether the run had ended.
        position = [*self._restored.pop("position"), 0][:3]
        self._epoch, self._batches, stopped = map(int, position)
        return self._epoch, self._batches, bool(stopped)

    def on_train_begin(self, logs=None):
        """Restore weights, optimizer and states."""
        if self._restored is not None:
            self._restore(self._variables(), "run")
            set_callback_states(self.others, self._restored_part(_CALLBACK))
            # Before the reader of the data draws from one.
            self._begin = self._restored_part(_BEGIN)
            set_random_states(self._begin)
            self._sets_torch_again = self.reads_on and not self._batches
            if not self._batches:
                self._restored = None
        self._begin = random_states()

    def on_epoch_begin(self, epoch, logs=None):
        """Note the epoch, which `initial_epoch` may have set.

        Within an epoch, the rate is that of the backup: callbacks that set it as an epoch
        begins did so before.
        """
        self._epoch = epoch
        if self._restored is not None:
            self._restore_rate()

    def on_train_batch_begin(self, batch, logs=None):
        """Restore torch's generators once more, from one of which a new reader draws."""
        if self._sets_torch_again:
            set_torch_states(self._begin)
            self._sets_torch_again = False

    def on_train_batch_end(self, batch, logs=None):
        """Save at the chosen frequency; after the batches left out, restore the means."""
        if self._restored is None:
            self._unsaved += batch + 1 - self._batches
            self._batches = batch + 1
            if self.save_freq != "epoch" and self._unsaved >= self.save_freq:
                self._save()
        elif batch + 1 >= self._batches:
            sync_variables(self.model)
            self._restore(self._means(), "epoch")
            set_random_states(self._restored_part(_NOW))
            self._restored = None

    def on_epoch_end(self, epoch, logs=None):
        """Save, if the frequency is an epoch."""
        self._epoch, self._batches = epoch + 1, 0
        self._begin = random_states()
        if self.save_freq == "epoch":
            self._save()

    def on_train_end(self, logs=None):
        """Remove the backups, unless they are to be kept."""
        if self.delete_checkpoint and is_first_worker(self.model):
            shutil.rmtree(self.backup_dir, ignore_errors=True)

    def _variables(self) -> dict:
        model = self.model
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        return files.numbered([*model.variables, *model.optimizer.variables], "run")

    def _restore_rate(self) -> None:
        rate, kept = self.model.optimizer.learning_rate, self._kept("run")
        for name, variable in self._variables().items():
            if variable is rate:
                variable.assign(kept[name])

    def _means(self) -> dict:
        return files.numbered(self.model.metrics_variables, "epoch")

    def _restored_part(self, prefix: str) -> dict:
        arrays = self._restored.items()
        return {n.removeprefix(prefix): x for n, x in arrays if n.startswith(prefix)}

    def _kept(self, part: str) -> dict:
        """Return the values of the variables of a part, by the variable's name."""
        return {
            files.without_counts(name): x
            for name, x in self._restored.items()
            if name.startswith(f"{part} ")
        }

    def _restore(self, variables: dict, part: str) -> None:
        kept = self._kept(part)
        if apart := files.differing(variables, kept):
            raise ValueError(
                f"The backup in '{self.backup_dir}' is of another model, optimizer or "
                f"terms, or of another version: they differ in {', '.join(apart[:4])}. "
                "Resume with the original ones, or remove the folder to start anew."
            )
        for name, variable in variables.items():
            variable.assign(kept[name])

    def _save(self):
        self._unsaved = 0
        sync_variables(self.model)
        if hasattr(self.model, "share_statistics"):
            self.model.share_statistics()
        variables = {**self._variables(), **self._means()}
        # Every worker reads, as reading may reduce over the workers.
        values = {
            name: files.to_numpy(variable) for name, variable in variables.items()
        }
        values |= self._states()
        if not is_first_worker(self.model):
            return
        os.makedirs(self.backup_dir, exist_ok=True)
        stopped = bool(self.model.stop_training)
        values["position"] = np.array([self._epoch, self._batches, stopped])
        keeps = self.double_checkpoint and not self._newest_is_damaged
        with files.write_then_rename(self._path) as beside:
            np.savez(beside, count=len(values), **values)
            if keeps and os.path.exists(self._path):
                os.replace(self._path, self._previous)
        self._newest_is_damaged = False

    def _states(self) -> dict:
        """Return the states of generators and callbacks."""
        states = {_BEGIN + name: x for name, x in self._begin.items()}
        if self._batches:
            states |= {_NOW + name: x for name, x in random_states().items()}
        of_callbacks = callback_states(self.others)
        return states | {_CALLBACK + name: x for name, x in of_callbacks.items()}


def _check_position(headers: dict) -> None:
    position = headers.get("position")
    if position is None or position.shape not in ((2,), (3,)):
        raise files.Damaged("it has no position in the data")


def exchange_backup(callbacks: list | keras.callbacks.CallbackList):
    """Put `kd.BackupAndRestore` in the place of Keras's, behind all other callbacks.

    Behind them, since their states at the end of an epoch are saved too.

    Returns:
        The backup, or None.
    """
    listed = getattr(callbacks, "callbacks", callbacks)
    found = (
        x
        for x in listed
        if isinstance(x, BackupAndRestore)
        or type(x) is keras.callbacks.BackupAndRestore
    )
    callback = next(found, None)
    if callback is None:
        return None
    backup = callback if isinstance(callback, BackupAndRestore) else _like(callback)
    if backup is not callback and listed is not callbacks:
        backup.set_model(callbacks.model)
        backup.set_params(callback.params)
    listed.remove(callback)
    backup.others = [other for other in listed if has_state(other)]
    listed.append(backup)
    return backup


def _like(callback: keras.callbacks.BackupAndRestore) -> BackupAndRestore:
    logging.getLogger("keras_distill").warning(
        "kd.BackupAndRestore takes the place of keras.callbacks.BackupAndRestore in '%s': "
        "it saves random states, metrics and the batch too. Pass it yourself to avoid "
        "this message.",
        callback.backup_dir,
    )
    return BackupAndRestore(
        callback.backup_dir,
        callback.save_freq,
        double_checkpoint=callback.double_checkpoint,
        delete_checkpoint=callback.delete_checkpoint,
    )
