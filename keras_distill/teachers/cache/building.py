"""Building the missing shards of a cache."""

import errno
import shutil
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import ops

from keras_distill.teachers.cache import rows
from keras_distill.teachers.cache.claims import Claims
from keras_distill.teachers.cache.shards import Shards


class Builder:
    """Runs the teacher on samples that are not cached yet, shard by shard.

    Args:
        shards: files to write the rows to.
        source: samples to run the teacher on.
        per_view: number of shards of a view.
        run: function from a batch to the teacher's inputs, the values to store, and the
            divergence of each sample's stored prediction from the full one.
        batch_size: samples that the teacher is run on at once.
        sample_ids: key of the ids.
    """

    def __init__(
        self,
        shards: Shards,
        source,
        per_view: int,
        run: Callable,
        batch_size: int,
        sample_ids: str,
    ):
        self.shards, self.source, self.per_view = shards, source, per_view
        self.run, self.batch_size, self.key = run, batch_size, sample_ids

    def build(self, worker: int, workers: int, patience: float, verbose) -> None:
        """Build all missing shards, this worker's first; return when all shards exist.

        Args:
            worker: index of this process.
            workers: number of processes.
            patience: seconds without a sign of life after which a process counts as dead.
            verbose: whether to print size and expected time and show a progress bar.

        Raises:
            OSError: the disk is full; complete shards stay.
        """
        claims = Claims(self.shards.folder, patience)
        missing = self._missing(range(len(self.shards.counts)))
        if not missing:
            return
        self._check_space(missing)
        claims.remove_parts()
        seconds = self._seconds_per_sample(missing)
        bar = self._announce(missing, seconds) if verbose else None
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
        if bar is not None:
            bar.update(bar.target, finalize=True)

    def _missing(self, among) -> list[int]:
        return [shard for shard in among if not self.shards.path(shard).exists()]

    def _seconds_per_sample(self, missing) -> float:
        """Return the seconds that the compiled teacher takes for a sample."""
        batch = next(self._batches(missing[0]))
        self.run(batch)
        start = time.perf_counter()
        self.run(batch)
        return (time.perf_counter() - start) / self.batch_size

    def _announce(self, missing, seconds: float) -> keras.utils.Progbar:
        count = sum(self.shards.counts[shard] for shard in missing)
        size = self.shards.row.itemsize
        print(
            f"Cache: {count:,} rows of {size} bytes, {count * size / 1e6:,.1f} MB in "
            f"{len(missing)} shards, about {count * seconds:,.0f} s of teacher time."
        )
        return keras.utils.Progbar(count, unit_name="row")

    def _check_space(self, missing) -> None:
        needed = sum(self.shards.counts[shard] for shard in missing)
        needed *= self.shards.row.itemsize
        free = shutil.disk_usage(self.shards.folder).free
        if free < needed:
            raise _disk_full(self.shards.folder, needed, free)

    def _build_one(self, shard: int, claims: Claims, bar) -> None:
        distances = []

        def parts():
            for batch in self._batches(shard):
                inputs, values, distance = self.run(batch)
                distances.append(distance)
                ids = batch[self.key]
                _check_finite(values, ids)
                yield rows.pack(self.shards.row, ids, rows.sketch(inputs), values)
                claims.renew(shard)
                if bar is not None:
                    bar.add(len(ids))

        def note():
            return {"distance": float(np.concatenate(distances).mean())}

        try:
            self.shards.write(shard, parts(), note)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            needed = self.shards.counts[shard] * self.shards.row.itemsize
            free = shutil.disk_usage(self.shards.folder).free
            raise _disk_full(self.shards.folder, needed, free) from error

    def _batches(self, shard: int) -> Iterator[dict]:
        view, index = divmod(shard, self.per_view)
        start = index * self.shards.counts[0]
        stop = start + self.shards.counts[shard]
        return self.source.read(view, start, stop, self.batch_size)


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


def _disk_full(folder, needed: int, free: int) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"no space for the cache: {needed / 1e6:,.1f} MB to write, {free / 1e6:,.1f} MB "
        "free. The existing shards are complete: free some space and call build again to "
        "continue, or store less (top_k, dtype='float16', fewer taps)",
        str(folder),
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
