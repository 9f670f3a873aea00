"""Codistillation: peers that train in separate processes and share a folder."""

import functools
import os
import re
import time
import warnings
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_distill._backend import files
from keras_distill._backend.jax_state import sync_variables
from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.strategies.replicas import is_first_worker, worker
from keras_distill.teachers.averaging_teacher import AveragingTeacher
from keras_distill.teachers.base_teacher import check_trained
from keras_distill.teachers.copies import Copies
from keras_distill.teachers.ensemble import member_weights

# Not "..", "a/b" or the drives of Windows.
_FILE_NAME = re.compile(r"[^./\\:\0-\x1f][^/\\:\0-\x1f]{0,199}")


class RemotePeers(AveragingTeacher):
    r"""Teachers that train at the same time, each in its own process.

    Every process trains one peer by a `Distiller` with this teacher, on its own data or
    on all. It writes its student's weights to a folder that all processes see, as `fit`
    begins and ends and every `refresh` steps, and reads the newest weights of the others
    into copies, which teach. With copies that are only this old,

    .. math::

        \mathrm{total}_i = \mathrm{CE}_i + w \, T^2 \,
            \mathrm{KL}(\mathrm{mean}_{j \ne i} \, p_j \,\|\, p_i)

    with the weight w of the term, trains nearly as well as with fresh ones, and no
    process waits for gradients: a peer that is slow, stopped or dead goes on teaching
    with its last weights. Start with labels alone, by a schedule that sets the term's
    weight to 0 at first. `MutualDistiller` with `refresh` does the same in one process.

    A peer may train under a strategy; its first worker writes. Weights that are not
    finite are neither written nor read. Layers are tapped by the index of the peer,
    `"0/stack2"`, as those of an ensemble. Use a folder for one run only: any files in it
    are read as the peers' newest weights.

    Args:
        peers: models with the architectures of the other peers, by the peers' names;
            they are copied.
        folder: that all processes can read and write.
        name: of this process's peer, by which the others know it.
        refresh: number of steps between two exchanges. Default 100.
        wait: seconds to wait, as `fit` begins, for the first weights of each peer that
            can be used. Default 600.
        average: of their predictions, as in `EnsembleTeacher`.
        weights: one positive number per peer. Default: equal.

    Raises:
        TypeError: a peer is not a `keras.Model`.
        ValueError: no peers, a name that cannot name a file or is its own, a model that
            is not built, or numbers out of range; as `fit` begins, no weights of a peer
            within the wait, or only such as are damaged, not finite or of other types,
            weights of another architecture, or a peer of several processes on JAX.

    Example:
        >>> teacher = kd.RemotePeers({"second": second}, "runs/peers", name="first")
        >>> distiller = kd.Distiller(first, teacher)

    Source:
        Anil et al. 2018, Large scale distributed neural network training through online
        distillation.
    """

    checks_first_batch = False

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
        _check_names([name, *peers])
        check_integers(1, refresh=refresh)
        check_in(0, wait=wait)
        for model in peers.values():
            check_trained(model)
        self.names, self.name = list(peers), name
        self.folder, self.refresh, self.wait = os.fspath(folder), refresh, wait
        self.copies = Copies(list(peers.values()), "remote_peers")
        models = self.copies.models
        weights = member_weights(models, average, weights, least=1)
        super().__init__(models, average, weights)
        self._read = {}

    @property
    def replicated(self) -> None:
        """None: the workers of a peer may read at different times."""
        return

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return the callback that writes and reads."""
        return [_Exchange(self)]

    def write(self, student: keras.Model) -> None:
        """Write the weights of this process's peer, in a file that is whole at any moment."""
        os.makedirs(self.folder, exist_ok=True)
        variables = files.numbered(student.variables, "weight")
        values = {name: files.to_numpy(v) for name, v in variables.items()}
        if _are_finite(values):
            files.write_arrays(self._path(self.name), values)

    def meet(self) -> None:
        """Wait for the weights of every peer, and read them.

        Raises:
            ValueError: those of one do not appear, or are of another architecture.
        """
        # A backup may have restored the copies since.
        self._read.clear()
        files.remove_left_over(self.folder)
        end = time.monotonic() + self.wait
        for name, model in zip(self.names, self.members, strict=True):
            while problem := self._load(name, model):
                if time.monotonic() > end:
                    raise ValueError(
                        f"No weights of the peer '{name}' that can be used appeared in "
                        f"'{self._path(name)}' within {self.wait:g} s ({problem}). Start "
                        f"its process, with name='{name}' and the same folder, or wait "
                        "longer."
                    )
                time.sleep(0.05)

    def read(self) -> None:
        """Read the weights of the others that are newer than those read before.

        Raises:
            ValueError: they are of another architecture.
        """
        for name, model in zip(self.names, self.members, strict=True):
            if problem := self._load(name, model):
                warnings.warn(
                    f"'{self._path(name)}' can't be used ({problem}); the peer '{name}' "
                    "goes on teaching with its previous weights.",
                    stacklevel=2,
                )

    def _load(self, name: str, model: keras.Model) -> str | None:
        """Read the weights of a peer if they are new; return what is wrong, or None."""
        path = self._path(name)
        try:
            status = os.stat(path)
            version = status.st_mtime_ns, status.st_size
            if self._read.get(name, (None, None))[0] == version:
                return self._read[name][1]
            variables = files.numbered(model.variables, "weight")
            check = functools.partial(_check_architecture, variables, model, name, path)
            found = files.read_arrays(path, check)
        except OSError as error:
            return str(error)
        except files.Damaged as error:
            self._read[name] = version, str(error)
            return str(error)
        problem = _assign(found, variables)
        self._read[name] = version, problem
        return problem

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, f"{name}.npz")


class _Exchange(keras.callbacks.Callback):
    """Writes and reads weights as `fit` begins, at every refresh, and at the end.

    It acts between two batches, where Keras calls it synchronously and computes no logs
    for it.
    """

    async_safe = True

    def __init__(self, peers: RemotePeers):
        super().__init__()
        self.peers = peers
        self.met, self.since, self.last = False, 0, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Meet the others in the first epoch; a backup is restored by then."""
        if not self.met:
            _check_one_process()
            self._write()
            self.peers.meet()
            self.met = True
        else:
            self.since += self.model.steps_per_execution
        self.last = 0

    def on_train_batch_begin(self, batch, logs=None):
        """Write and read every `refresh` steps; one call may be several steps."""
        self.since += batch - self.last
        self.last = batch
        if self.since >= self.peers.refresh:
            self.since = 0
            self._write()
            self.peers.read()

    def on_train_end(self, logs=None):
        """Write the last weights, for peers that still train."""
        self._write()

    def _write(self):
        sync_variables(self.model)
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
                "others go on with the previous ones.",
                stacklevel=2,
            )


def _check_architecture(variables, model, name: str, path: str, headers: dict) -> None:
    """Check that the weights in a file are those of a model, by names and shapes."""
    if apart := files.differing(variables, headers):
        raise ValueError(
            f"The peer '{name}' has another architecture than the model passed for "
            f"it: '{path}' and '{model.name}' differ in {', '.join(apart[:4])}. Pass "
            "a model as its process trains it."
        )


def _assign(found: dict, variables: dict) -> str | None:
    """Assign all weights in a file, or none; return what is wrong with them, or None."""
    for key, variable in variables.items():
        if problem := _unfit(
            found[key], keras.backend.standardize_dtype(variable.dtype)
        ):
            return f"'{key}' {problem}"
    for key, variable in variables.items():
        variable.assign(found[key])
    return None


def _unfit(values: np.ndarray, dtype: str) -> str | None:
    """Return why values can't be those of a variable, or None if they can."""
    # NumPy has no bfloat16, whose range is that of float32.
    own = np.dtype("float32" if dtype == "bfloat16" else dtype)
    if (values.dtype.kind == "f") != (own.kind == "f"):
        return f"is {values.dtype}, not {dtype}"
    if own.kind == "f" and not np.isfinite(values).all():
        return "is not finite"
    with np.errstate(over="ignore"):
        held = values.astype(own)
    fits = np.isfinite(held) if own.kind == "f" else held == values
    return None if fits.all() else f"has values that {dtype} can't hold"


def _are_finite(arrays: dict) -> bool:
    return all(np.isfinite(x).all() for x in arrays.values() if x.dtype.kind == "f")


def _check_one_process() -> None:
    if keras.backend.backend() == "jax" and worker()[1] > 1:
        raise ValueError(
            "On JAX a peer trains in one process, as its copies of the others must be "
            f"the same on all; there are {worker()[1]}. Train one peer in each."
        )


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise ValueError(
                "A peer's name must be able to name a file in the folder, 1 to 200 "
                f"characters without / \\ : and not beginning with a dot; got {name!r}."
            )
    if len(names) < 2 or names[0] in names[1:]:
        raise ValueError(
            "peers are the others, at least one, and name is that of this process; "
            f"got peers {names[1:]} and name '{names[0]}'."
        )
