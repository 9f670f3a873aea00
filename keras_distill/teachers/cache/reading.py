"""Reading rows of a cache by sample id."""

import pathlib

import numpy as np

from keras_distill.teachers.cache.contents import Contents, Index


class Reader:
    """Reads the rows of a complete cache.

    Raises:
        ValueError: shards are missing or damaged.
    """

    def __init__(self, folder: pathlib.Path, contents: Contents):
        self.contents = contents
        shards = contents.shards(folder)
        _check_complete(shards, folder)
        numbers = range(len(shards.counts))
        distances = [shards.note(shard)["distance"] for shard in numbers]
        self.distance = float(np.average(distances, weights=shards.counts))
        self.row = shards.row
        self.shards = [shards.open(shard) for shard in numbers]
        self.index = Index(self.shards[: contents.per_view])

    def read(self, ids: np.ndarray, views: np.ndarray | int = 0) -> np.ndarray:
        """Return the rows of samples, `(B,)`, as in `CachedTeacher.read`."""
        views = np.broadcast_to(np.asarray(views, "int64"), np.shape(ids))
        if len(views) and not 0 <= views.min() <= views.max() < self.contents.views:
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
        return batch


def _check_complete(shards, folder) -> None:
    damage = {shard: shards.damage(shard) for shard in range(len(shards.counts))}
    if listed := [
        f"{shards.path(s).name} {what}" for s, what in damage.items() if what
    ]:
        raise ValueError(
            f"The cache in '{folder}' is incomplete: {', '.join(listed[:5])}"
            f"{' and more' if len(listed) > 5 else ''}. Call build(data) with the "
            "teacher, which builds these shards and leaves the others as they are."
        )
