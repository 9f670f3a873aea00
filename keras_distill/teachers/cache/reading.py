"""Reading rows of a cache by sample id."""

import pathlib

import numpy as np

from keras_distill.teachers.cache import rows
from keras_distill.teachers.cache.contents import Contents, Index


class Reader:
    """Reads the rows of a complete cache.

    Raises:
        ValueError: shards are missing or damaged.
    """

    def __init__(self, folder: pathlib.Path, contents: Contents):
        self.contents = contents
        shards = contents.shards(folder)
        numbers = range(len(shards.counts))
        distances = _distances([shards.examine(s) for s in numbers], shards, folder)
        self.distance = float(np.average(distances, weights=shards.counts))
        self.row = shards.row
        self.shards = [shards.open(shard) for shard in numbers]
        self.index = Index(self.shards[: contents.per_view])
        self.close()

    def close(self) -> None:
        """Close the files until they are read again."""
        for shard in self.shards:
            shard.file.close()

    def read(self, ids: np.ndarray, views: np.ndarray | int = 0) -> np.ndarray:
        """Return the rows of samples, `(B,)`, as in `CachedTeacher.read`."""
        ids, views = np.asarray(ids), np.asarray(views)
        _check_integers("ids", ids)
        _check_integers("views", views)
        if ids.ndim != 1:
            raise ValueError(f"ids must be (B,), one per sample; got {ids.shape}.")
        if not len(ids):
            return np.empty(0, self.row)
        views = np.broadcast_to(views.astype("int64"), ids.shape)
        if not 0 <= views.min() <= views.max() < self.contents.views:
            raise ValueError(
                f"The cache has the views 0 to {self.contents.views - 1}; got "
                f"{views.min()} to {views.max()}. Use the Views that it was built with."
            )
        positions = self.index.positions(ids)
        shards, positions = np.divmod(positions, self.contents.shard_rows)
        shards += views * self.contents.per_view
        batch = np.empty(len(positions), self.row)
        order = np.argsort(shards, kind="stable")
        numbers, starts = np.unique(shards[order], return_index=True)
        for number, part in zip(numbers, np.split(order, starts[1:]), strict=True):
            batch[part] = self.shards[number][positions[part]]
        check_ids(batch[rows.ID], ids, views)
        return batch


def check_ids(found: np.ndarray, ids: np.ndarray, views: np.ndarray) -> None:
    """Check that rows are of the samples that were looked up, `(B,)` each."""
    other = found != ids
    if other.any():
        first = np.argmax(other)
        raise ValueError(
            f"In view {views[first]} the cache has the sample {found[first]} in the place "
            f"of {ids[first]}, which is in view 0: the data came in another order. Remove "
            "the folder and build the cache again."
        )


def _distances(examined: list, shards, folder) -> list[float]:
    """Return the divergences in the shards' notes; raise if a shard is damaged."""
    problems = [
        problem or (None if _is_number(note.get("distance")) else "has no divergence")
        for problem, note in examined
    ]
    if listed := [
        f"{shards.path(shard).name} {problem}"
        for shard, problem in enumerate(problems)
        if problem
    ]:
        raise ValueError(
            f"The cache in '{folder}' is incomplete: {', '.join(listed[:5])}"
            f"{' and more' if len(listed) > 5 else ''}. Call build(data) with the "
            "teacher, which builds these shards and leaves the others as they are."
        )
    return [note["distance"] for _, note in examined]


def _check_integers(name: str, values: np.ndarray) -> None:
    if values.size and values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers; got {values.dtype}.")


def _is_number(value) -> bool:
    return isinstance(value, float | int)
