"""Making the shards of a cache that are not there yet."""

from __future__ import annotations

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


class Building:
    """Runs the teacher over what is missing, shard by shard.

    Args:
        shards: where rows go.
        source: what the teacher is shown.
        per_view: how many shards a view has.
        run: from the inputs of a batch to what the teacher was shown of it, what is
            kept, and the distance of each sample's prediction from what is kept.
        batch_size: samples the teacher is shown at a time.
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

    def make(self, worker: int, workers: int, patience: float, verbose) -> None:
        """Make all that is missing, own shards first; return when every one is there.

        Args:
            worker: number of this process.
            workers: how many there are.
            patience: seconds after which a process that gives no sign is taken for dead.
            verbose: whether to show the size, the time that is left and a bar.

        Raises:
            OSError: the disk is full; what is whole stays.
        """
        claims = Claims(self.shards.folder, patience)
        missing = self._missing(range(len(self.shards.counts)))
        if not missing:
            return
        self._has_room(missing)
        claims.remove_parts()
        seconds = self._time(missing)
        bar = self._announce(missing, seconds) if verbose else None
        missing.sort(key=lambda shard: (shard % workers != worker, shard))
        while missing:
            for shard in missing:
                if not self.shards.path(shard).exists() and claims.take(shard):
                    try:
                        self._make_one(shard, claims, bar)
                    finally:
                        claims.free(shard)
            missing = self._missing(missing)
            if missing:
                time.sleep(min(1.0, patience / 4))
        if bar is not None:
            bar.update(bar.target, finalize=True)

    def _missing(self, among) -> list[int]:
        return [shard for shard in among if not self.shards.path(shard).exists()]

    def _time(self, missing) -> float:
        """Give the seconds that a sample takes, once all is compiled."""
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
            f"{len(missing)} shards, about {count * seconds:,.0f} s of the teacher."
        )
        return keras.utils.Progbar(count, unit_name="row")

    def _has_room(self, missing) -> None:
        needed = sum(self.shards.counts[shard] for shard in missing)
        needed *= self.shards.row.itemsize
        free = shutil.disk_usage(self.shards.folder).free
        if free < needed:
            raise _full(self.shards.folder, needed, free)

    def _make_one(self, shard: int, claims: Claims, bar) -> None:
        distances = []

        def parts():
            for batch in self._batches(shard):
                seen, kept, distance = self.run(batch)
                distances.append(distance)
                ids = batch[self.key]
                _finite(kept, ids)
                yield rows.pack(self.shards.row, ids, rows.sketch(seen), kept)
                claims.touch(shard)
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
            raise _full(self.shards.folder, needed, free) from error

    def _batches(self, shard: int) -> Iterator[dict]:
        view, place = divmod(shard, self.per_view)
        start = place * self.shards.counts[0]
        stop = start + self.shards.counts[shard]
        return self.source.read(view, start, stop, self.batch_size)


def _finite(kept: dict, ids) -> None:
    for tap, parts in kept.items():
        for values in parts.values():
            good = np.isfinite(values.reshape(len(ids), -1)).all(axis=1)
            if not good.all():
                raise ValueError(
                    f"What '{tap}' gives is not finite in {values.dtype} for samples as "
                    f"{ids[~good][:5].tolist()}. Keep it in dtype='float32', or find out "
                    "what the teacher makes of them."
                )


def _full(folder, needed: int, free: int) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"no room for the cache: {needed / 1e6:,.1f} MB to write, {free / 1e6:,.1f} MB "
        "free. The shards that are there are whole: make room and call build again to "
        "go on, or keep less (top_k, dtype='float16', fewer taps)",
        str(folder),
    )


def compiled(function: Callable) -> Callable:
    """Compile a function of a batch's tensors, which gives arrays."""
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
        found = function(keras.tree.map_structure(ops.convert_to_tensor, inputs))
        return keras.tree.map_structure(ops.convert_to_numpy, found)

    return run
