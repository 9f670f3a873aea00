"""Going on where a run was stopped, to the batch and to the bit."""

from __future__ import annotations

import os
import warnings

import keras
import numpy as np

from keras_distill._backend import files
from keras_distill._backend.jax_state import synchronise
from keras_distill.strategies.replicas import is_first_worker

# States of torch's generators: the CPU's, then each GPU's.
_RANDOM = tuple(f"random{place:02d}" for place in range(65))


class ExactBackup(keras.callbacks.BackupAndRestore):
    """What `fit` puts in the place of `keras.callbacks.BackupAndRestore`.

    Keras saves weights and optimiser, and starts the epoch that was stopped anew. This
    one saves the states of random layers, the metrics and the batch too, in one file
    that is whole at any moment. Across workers the first one writes, and all read.

    Args:
        given: the user's callback; its arguments hold.
    """

    def __init__(self, given: keras.callbacks.BackupAndRestore):
        super().__init__(
            given.backup_dir,
            given.save_freq,
            given.double_checkpoint,
            given.delete_checkpoint,
        )
        self._path = os.path.join(self.backup_dir, "state.npz")
        self._previous = os.path.join(self.backup_dir, "previous.npz")
        self._found, self._random = None, []
        self._done = 0
        self._newest_is_damaged = False

    def find(self) -> tuple[int, int]:
        """Read what was saved, if anything was; give the epoch and its batches done.

        A newest file that is damaged gives way to the one before, which
        `double_checkpoint` keeps.

        Raises:
            ValueError: what is there is damaged.
        """
        damages = []
        for path in filter(os.path.exists, (self._path, self._previous)):
            try:
                self._found = files.read_arrays(path)
            except files.Damaged as error:
                damages.append(f"'{path}' is damaged ({error})")
                continue
            if damages:
                warnings.warn(f"{damages[0]}; going on with '{path}'.", stacklevel=4)
            self._newest_is_damaged = bool(damages)
            self._current_epoch, self._done = map(int, self._found.pop("position"))
            self._last_batch_seen = max(self._done - 1, 0)
            return self._current_epoch, self._done
        if damages:
            raise ValueError(
                f"The run can't go on: {' and '.join(damages)}, and no other backup is "
                "there. Put a copy of the file in its place, or remove the folder to "
                "start anew. BackupAndRestore(..., double_checkpoint=True) keeps the "
                "backup before the newest too."
            )
        return 0, 0

    def on_train_begin(self, logs=None):
        """Put everything back as it was saved."""
        if self._found is None:
            return
        self.model._initial_epoch = self._current_epoch
        kept = [name for name in _RANDOM if name in self._found]
        self._random = [self._found.pop(name) for name in kept]
        self._restore(self._of_run(), "run")
        if not self._done:
            self._found = None

    def on_epoch_begin(self, epoch, logs=None):
        """Know the epoch, which `initial_epoch` may have set."""
        self._current_epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Put torch's generators back, once the reader of the data has drawn from one."""
        if self._found is None and self._random:
            import torch

            on_cpu, *on_gpus = map(torch.from_numpy, self._random)
            torch.set_rng_state(on_cpu)
            torch.cuda.set_rng_state_all(on_gpus)
            self._random = []

    def on_train_batch_end(self, batch, logs=None):
        """Save where it is time; after the batches left out, put the means back."""
        if self._found is None:
            self._done = batch + 1
            super().on_train_batch_end(batch, logs)
        elif batch + 1 >= self._done:
            synchronise(self.model)
            self._restore(self._of_epoch(), "epoch")
            self._found = None

    def on_epoch_end(self, epoch, logs=None):
        """Save, if it is done by epochs."""
        self._done = 0
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        """Remove what was saved, unless it is to be kept."""
        if is_first_worker(self.model):
            super().on_train_end(logs)

    def _of_run(self) -> dict:
        model = self.model
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        return files.numbered([*model.variables, *model.optimizer.variables], "run")

    def _of_epoch(self) -> dict:
        return files.numbered(self.model.metrics_variables, "epoch")

    def _restore(self, variables: dict, part: str) -> None:
        found = {n: x for n, x in self._found.items() if n.startswith(part)}
        if apart := files.differing(variables, found):
            raise ValueError(
                f"The backup in '{self.backup_dir}' is of another model, optimiser or "
                f"terms: they differ in {', '.join(apart[:4])}. Go on with those, or "
                "remove the folder to start anew."
            )
        for name, variable in variables.items():
            variable.assign(self._found[name])

    def _save_model(self):
        synchronise(self.model)
        self.model.share_statistics()
        variables = {**self._of_run(), **self._of_epoch()}
        # Every worker reads, as reading may add up what the workers hold.
        values = {
            name: files.to_numpy(variable) for name, variable in variables.items()
        }
        if keras.backend.backend() == "torch":
            import torch

            # Keras's random layers draw from them, past their own seeds.
            states = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
            for name, state in zip(_RANDOM, states, strict=False):
                values[name] = state.numpy()
        if not is_first_worker(self.model):
            return
        os.makedirs(self.backup_dir, exist_ok=True)
        values["position"] = np.array([self._current_epoch, self._done])
        keeps = self.double_checkpoint and not self._newest_is_damaged
        with files.write_then_rename(self._path) as beside:
            np.savez(beside, count=len(values), **values)
            if keeps and os.path.exists(self._path):
                os.replace(self._path, self._previous)
        self._newest_is_damaged = False


def exact(callbacks) -> tuple:
    """Put the exact backup in the place of Keras's; give it too, None without one."""
    listed = getattr(callbacks, "callbacks", callbacks)
    for place, callback in enumerate(listed):
        if type(callback) is keras.callbacks.BackupAndRestore:
            listed[place] = ExactBackup(callback)
            if listed is not callbacks:
                listed[place].set_model(callbacks.model)
                listed[place].set_params(callback.params)
            return callbacks, listed[place]
    return callbacks, None
