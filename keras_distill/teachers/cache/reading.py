"""Reading rows of a cache by sample id."""

from __future__ import annotations

import functools
import pathlib

import numpy as np

from keras_distill.teachers.cache import rows
from keras_distill.teachers.cache.contents import Contents, Index


class Reader:
    """The rows of a cache that is whole.

    Args:
        folder: of the cache.
        contents: of it.

    Raises:
        ValueError: shards are missing or damaged.
    """

    def __init__(self, folder: pathlib.Path, contents: Contents):
        self.contents = contents
        shards = contents.shards(folder)
        _are_whole(shards, folder)
        numbers = range(len(shards.counts))
        self.distance = sum(
            shards.note(shard)["distance"] * shards.counts[shard] for shard in numbers
        ) / sum(shards.counts)
        self.row = shards.row
        self.shards = [shards.open(shard) for shard in numbers]
        first = self.shards[: contents.per_view]
        self.index = Index([functools.partial(s.column, rows.ID) for s in first])

    def read(self, ids: np.ndarray, views: np.ndarray | int = 0) -> np.ndarray:
        """Give the rows of samples, `(B,)`.

        Args:
            ids: of the samples, `(B,)`.
            views: which view of each, `(B,)`, or of all.

        Raises:
            ValueError: there is no such sample or view.
        """
        views = np.broadcast_to(np.asarray(views, "int64"), np.shape(ids))
        if len(views) and not 0 <= views.min() <= views.max() < self.contents.views:
            raise ValueError(
                f"The cache has the views 0 to {self.contents.views - 1}; got "
                f"{views.min()} to {views.max()}. Give the Views it was made with."
            )
        places = self.index.places(ids)
        shards, places = np.divmod(places, self.contents.shard_rows)
        shards += views * self.contents.per_view
        found = np.empty(len(places), self.row)
        order = np.argsort(shards, kind="stable")
        numbers, starts = np.unique(shards[order], return_index=True)
        for number, own in zip(numbers, np.split(order, starts[1:]), strict=True):
            found[own] = self.shards[number][places[own]]
        return found


def _are_whole(shards, folder) -> None:
    damage = {shard: shards.damage(shard) for shard in range(len(shards.counts))}
    damage = {shard: what for shard, what in damage.items() if what is not None}
    if damage:
        listed = [f"{shards.path(s).name} {what}" for s, what in damage.items()]
        raise ValueError(
            f"The cache in '{folder}' is not whole: {', '.join(listed[:5])}"
            f"{' and more' if len(listed) > 5 else ''}. Call build(data) with the "
            "teacher: it makes these shards and leaves the others."
        )
