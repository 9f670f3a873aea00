"""Codistillation: peers that train in processes of their own and meet in a folder."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_distill._backend import files
from keras_distill._backend.jax_state import synchronise
from keras_distill.strategies.replicas import is_first_worker, worker
from keras_distill.teachers.copies import Copies
from keras_distill.teachers.ensemble import EnsembleTeacher, member_weights
from keras_distill.teachers.teacher import check


class RemotePeers(EnsembleTeacher):
    """Teachers that train at the same time, each in a process of its own.

    Every process trains one peer by a `Distiller`, with this teacher, from data of its
    own or from all. It writes its student's weights to a folder that all processes see,
    as `fit` begins and ends and every so many steps, and takes the newest weights of the
    others into copies, which teach. With weights only this old,

        total_i = CE_i + weight * T^2 KL(mean_{j != i} p_j || p_i)

    trains nearly as with fresh ones, and nobody waits for gradients: a peer that is slow,
    has stopped or died goes on teaching with its last weights. Begin by labels alone,
    with a term's weight as a schedule that is 0 at first. `MutualDistiller` with
    `refresh` does the same in one process.

    A peer may train under a strategy; its first worker writes. Weights that are not
    finite are neither written nor read. Layers are tapped by the place of the peer,
    `"0/stack2"`, as those of an ensemble. The folder is one run's: what is in it already
    is taken for the peers' newest.

    Args:
        peers: models of the other peers' architectures, by the peers' names; they are
            copied.
        folder: where all processes can read and write.
        name: of this process's peer, as the others call it.
        refresh: write and read every so many steps. Default 100.
        wait: seconds to wait, as `fit` begins, for each peer's first weights. Default
            600.
        average: of their predictions, as in `EnsembleTeacher`.
        weights: one positive number a peer. Default: equal.

    Raises:
        TypeError: a peer is no `keras.Model`.
        ValueError: no peers, a name that is no file's or is its own, a model that is not
            built, numbers out of range; as `fit` begins, no weights of a peer, those of
            another architecture, or a peer of several processes on JAX.

    Example:
        >>> teacher = kd.RemotePeers({"second": net()}, "runs/peers", name="first")
        >>> distiller = kd.Distiller(student, teacher)

    Source:
        Anil et al. 2018, Large scale distributed neural network training through online
        distillation.
    """

    def __init__(
        self,
        peers: Mapping[str, keras.Model],
        folder: str | os.PathLike,
        *,
        name: str,
        refresh: int = 100,
        wait: float = 600.0,
        average: str = "arithmetic",
        weights: Sequence[float] | None = None,
    ):
        _are_names([name, *peers])
        if refresh < 1 or wait < 0:
            raise ValueError(
                "refresh is a number of steps, 1 or more, and wait one of seconds, 0 or "
                f"more; got {refresh} and {wait}."
            )
        for model in peers.values():
            check(model)
        self.names, self.name = list(peers), name
        self.folder, self.refresh, self.wait = os.fspath(folder), refresh, wait
        self.copies = Copies(list(peers.values()), "remote_peers")
        self.members, self.average = tuple(self.copies.models), average
        self.weights = member_weights(self.members, average, weights, least=1)
        self._norms, self._read = {}, {}

    @property
    def followers(self) -> keras.Layer:
        """Give the layer that holds the copies."""
        return self.copies

    @property
    def replicated(self) -> None:
        """Give no layer: the workers of a peer may have read one after another."""
        return

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Give the callback that writes and reads."""
        return [_Exchange(self)]

    def write(self, student: keras.Model) -> None:
        """Let the others have a student's weights, in a file that is whole at any moment.

        Args:
            student: the peer of this process.
        """
        os.makedirs(self.folder, exist_ok=True)
        variables = files.numbered(student.variables, "weight")
        values = {name: files.to_numpy(v) for name, v in variables.items()}
        if not _are_finite(values):
            return
        path = self._path(self.name)
        files.write_arrays(path, values)

    def meet(self) -> None:
        """Wait for the weights of every peer, and take them.

        Raises:
            ValueError: those of one do not come, or are of another architecture.
        """
        # The copies may have been put back meanwhile to what they were before.
        self._read.clear()
        end = time.monotonic() + self.wait
        for name in self.names:
            while not os.path.exists(self._path(name)):
                if time.monotonic() > end:
                    raise ValueError(
                        f"No weights of the peer '{name}' came to "
                        f"'{self._path(name)}' in {self.wait:g} s. Start its process, "
                        f"with name='{name}' and the same folder, or wait longer."
                    )
                time.sleep(0.05)
        self.read()

    def read(self) -> None:
        """Take the newest weights of the others, where they are newer than those here.

        Raises:
            ValueError: they are of another architecture.
        """
        for name, model in zip(self.names, self.members, strict=True):
            path = self._path(name)
            try:
                written = os.stat(path).st_mtime_ns
                if self._read.get(name) == written:
                    continue
                found = files.read_arrays(path)
                if not _are_finite(found):
                    raise files.Damaged("weights that are not finite")
            except (OSError, files.Damaged) as error:
                warnings.warn(
                    f"'{path}' can't be used ({error}); the peer '{name}' teaches on "
                    "with the weights before.",
                    stacklevel=2,
                )
                continue
            _put(found, model, name, path)
            self._read[name] = written

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, f"{name}.npz")


class _Exchange(keras.callbacks.Callback):
    """Writes and reads as `fit` begins, every so many steps, and at the end.

    It works between two batches, where Keras calls it from the loop itself, and does not
    ask for the logs of each.

    Args:
        peers: what is written and read.
    """

    async_safe = True

    def __init__(self, peers: RemotePeers):
        super().__init__()
        self.peers = peers
        self.met, self.since, self.last = False, 0, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Meet the others, at first; by then a backup has been put back."""
        if not self.met:
            _is_one_process()
            self._write()
            self.peers.meet()
            self.met = True
        else:
            self.since += self.model.steps_per_execution
        self.last = 0

    def on_train_batch_begin(self, batch, logs=None):
        """Write and read where it is time; one call may have been of several steps."""
        self.since += batch - self.last
        self.last = batch
        if self.since >= self.peers.refresh:
            self.since = 0
            self._write()
            self.peers.read()

    def on_train_end(self, logs=None):
        """Leave the last weights to those that still train."""
        self._write()

    def _write(self):
        synchronise(self.model)
        self.model.share_statistics()
        if not is_first_worker(self.model):
            return
        try:
            self.peers.write(self.model.student)
        except OSError as error:
            if not self.met:
                raise
            warnings.warn(
                f"The weights of '{self.peers.name}' can't be written ({error}); the "
                "others learn on from those before.",
                stacklevel=2,
            )


def _put(found: dict, model: keras.Model, name: str, path: str) -> None:
    """Put what a file holds into a model."""
    variables = files.numbered(model.variables, "weight")
    if apart := files.differing(variables, found):
        raise ValueError(
            f"The peer '{name}' has another architecture than the model that is given "
            f"for it: '{path}' and '{model.name}' differ in {', '.join(apart[:4])}. Give "
            "a model as its process trains it."
        )
    for key, variable in variables.items():
        variable.assign(found[key])


def _are_finite(arrays: dict) -> bool:
    return all(np.isfinite(x).all() for x in arrays.values() if x.dtype.kind == "f")


def _is_one_process() -> None:
    if keras.backend.backend() == "jax" and worker()[1] > 1:
        raise ValueError(
            "On JAX a peer trains in one process, as its copies of the others are to be "
            f"the same on all; there are {worker()[1]}. Train one peer in each."
        )


def _are_names(names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not name or os.path.basename(name) != name:
            raise ValueError(f"A peer's name is that of its file; got {name!r}.")
    if len(names) < 2 or names[0] in names[1:]:
        raise ValueError(
            "peers are the others, one or more, and name is that of this process's own; "
            f"got peers {names[1:]} and name '{names[0]}'."
        )
