"""Building the missing shards of a cache."""

import errno
import shutil
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import ops

from keras_distill._backend.progress_bar import ProgressBar
from keras_distill.teachers.cache import rows
from keras_distill.teachers.cache.claims import Claims
from keras_distill.teachers.cache.shards import Shards


class Builder:
    """Runs the teacher on samples that are not cached yet, shard by shard.

    Args:
        shards: files to write the rows to.
        exact: which inputs are compared exactly, as in `Contents`.
        source: samples to run the teacher on; `key` is that of their ids.
        run: as `Recipe.runner` returns it.
        batch_size: samples that the teacher is run on at once.
    """

    def __init__(
        self,
        shards: Shards,
        exact: tuple[bool, ...],
        source,
        key: str,
        run: Callable,
        batch_size: int,
    ):
        self.shards, self.exact = shards, exact
        self.source, self.key = source, key
        self.run, self.batch_size = run, batch_size

    def build(self, worker: int, workers: int, patience: float, verbose) -> None:
        """Build all missing shards, this worker's first; return when all shards exist.

        The other arguments are as in `CachedTeacher.build`.

        Raises:
            OSError: the disk is full; complete shards stay.
        """
        claims = Claims(self.shards.folder, patience)
        shards = range(len(self.shards.counts))
        missing = self._missing(shards)
        claims.remove_left_over(set(shards) - set(missing))
        if not missing:
            return
        if shutil.disk_usage(self.shards.folder).free < self._bytes(missing):
            raise self._disk_full(missing)
        bar = self._announce(missing, verbose)
        missing.sort(key=lambda shard: (shard % workers != worker, shard))
        while missing:
            for shard in missing:
                if not self.shards.path(shard).exists() and claims.acquire(shard):
                    try:
                        self._build_one(shard, claims, bar)
                    finally:
                        claims.release(shard)
            missing = self._missing(missing)
            if missing:
                time.sleep(min(1.0, patience / 4))
        bar.finish()

    def _missing(self, among) -> list[int]:
        return [shard for shard in among if not self.shards.path(shard).exists()]

    def _seconds_per_sample(self, missing) -> float:
        """Return the seconds that the compiled teacher takes for a sample."""
        batch = next(self._batches(missing[0]))
        self.run(batch)
        start = time.perf_counter()
        self.run(batch)
        return (time.perf_counter() - start) / self.batch_size

    def _announce(self, missing, verbose) -> ProgressBar:
        count = sum(self.shards.counts[shard] for shard in missing)
        seconds = count * self._seconds_per_sample(missing)
        if verbose:
            print(
                f"Cache: {count:,} rows of {self.shards.row.itemsize} bytes, "
                f"{self._bytes(missing) / 1e6:,.1f} MB in {len(missing)} shards, about "
                f"{seconds:,.0f} s of teacher time."
            )
        return ProgressBar(count, "rows", verbose=1 if verbose else 0)

    def _bytes(self, shards) -> int:
        counts = (self.shards.counts[shard] for shard in shards)
        return sum(counts) * self.shards.row.itemsize

    def _build_one(self, shard: int, claims: Claims, bar) -> None:
        distances = []

        def parts():
            for batch in self._batches(shard):
                ids = batch[self.key]
                inputs, values, distance = self.run(batch)
                distances.append(distance)
                marks = rows.marks(inputs, self.exact)
                rows.check_marks(marks, ids)
                _check_finite(values, ids)
                yield rows.pack(self.shards.row, ids, marks, values)
                claims.renew(shard)
                bar.update(bar.done + len(ids), milestone=False)

        def note():
            return {"distance": float(np.concatenate(distances).mean())}

        try:
            self.shards.write(shard, parts(), note)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise self._disk_full([shard]) from error

    def _disk_full(self, shards) -> OSError:
        free = shutil.disk_usage(self.shards.folder).free
        return OSError(
            errno.ENOSPC,
            f"no space for the cache: {self._bytes(shards) / 1e6:,.1f} MB to write, "
            f"{free / 1e6:,.1f} MB free. The existing shards are complete: free some space "
            "and call build again to continue, or store less (top_k, dtype='float16', "
            "fewer taps)",
            str(self.shards.folder),
        )

    def _batches(self, shard: int) -> Iterator[dict]:
        view, index = divmod(shard, self.shards.per_view)
        start = index * self.shards.counts[0]
        stop = start + self.shards.counts[shard]
        for batch in self.source.read(view, start, stop, self.batch_size):
            ids = batch[self.key]
            expected = self.source.ids[start : start + len(ids)]
            if not np.array_equal(ids, expected):
                raise ValueError(
                    "The data came in another order than before, as from shuffle(): the "
                    f"ids {ids[:5].tolist()} in the place of {expected[:5].tolist()}. "
                    "Pass the data to build in one order."
                )
            yield batch
            start += len(ids)


def _check_finite(values_of_taps: dict, ids) -> None:
    for tap, parts in values_of_taps.items():
        for values in parts.values():
            finite = np.isfinite(values.reshape(len(ids), -1)).all(axis=1)
            if not finite.all():
                raise ValueError(
                    f"The values of '{tap}' are not finite in {values.dtype} for samples "
                    f"such as {ids[~finite][:5].tolist()}. Pass dtype='float32', or check "
                    "the teacher's outputs for these samples."
                )


def compiled(function: Callable) -> Callable:
    """Compile a function of a batch's tensors; its results become NumPy arrays."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(function, reduce_retracing=True)
    elif backend == "jax":
        import jax

        function = jax.jit(function)
    else:
        import torch

        function = torch.no_grad()(function)

    def run(inputs):
        outputs = function(keras.tree.map_structure(ops.convert_to_tensor, inputs))
        return keras.tree.map_structure(ops.convert_to_numpy, outputs)

    return run
