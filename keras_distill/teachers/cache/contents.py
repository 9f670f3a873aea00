"""The file beside the shards: what a cache contains and what it was made of."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from keras_distill._backend.files import write_then_rename
from keras_distill.teachers.cache import forms, rows
from keras_distill.teachers.cache.shards import ShardRows, Shards

FILE, FORMAT = "cache.json", 1


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a cache contains.

    Args:
        made_of: fingerprints of teacher, preprocessing, data and views, the taps with
            their forms, and the temperature, by name.
        shapes: shape of a sample's value at each tap, without the batch axis.
        samples: number of samples.
        views: number of views of each sample.
        shard_rows: rows per shard; the last shard of a view may have fewer.
        wide_ids: whether some ids need more than 32 bits.
    """

    made_of: dict
    shapes: dict
    samples: int
    views: int
    shard_rows: int
    wide_ids: bool

    @property
    def forms(self) -> dict:
        """The form of each tap's cached values, by the tap's text."""
        configs = self.made_of["taps"]
        return {tap: forms.from_config(config) for tap, config in configs.items()}

    @property
    def parts(self) -> dict:
        """For each tap's text, dtype and shape of a sample's arrays, by name."""
        return {tap: form.parts(self.shapes[tap]) for tap, form in self.forms.items()}

    @property
    def per_view(self) -> int:
        """The number of shards of a view."""
        return -(-self.samples // self.shard_rows)

    def decode(self, tap: str, stored: dict):
        """Return the tensor of a tap from a batch's arrays by name."""
        return self.forms[tap].decode(stored, self.shapes[tap])

    def shards(self, folder: pathlib.Path) -> Shards:
        """Return the files of the rows in a folder."""
        row = rows.row_type(self.parts, self.wide_ids)
        last = self.samples - (self.per_view - 1) * self.shard_rows
        counts = [self.shard_rows] * (self.per_view - 1) + [last]
        return Shards(folder, row, counts * self.views)

    def write(self, folder: pathlib.Path) -> None:
        """Write the file, which is complete or absent at any moment."""
        text = json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1)
        with write_then_rename(folder / FILE) as beside:
            beside.write_text(text, "utf-8")


def read(folder: pathlib.Path) -> Contents | None:
    """Return the contents of the cache in a folder, or None if there is no cache.

    Raises:
        ValueError: the file can't be read, or has another format.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        fields = json.loads(path.read_text("utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        fields["shapes"] = {tap: tuple(s) for tap, s in fields["shapes"].items()}
        return Contents(**fields)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{path}' can't be read as the contents of a cache ({error}). Remove the "
            "folder and build the cache again."
        ) from error


class Index:
    """Index from sample ids to the rows of a view's shards.

    Raises:
        ValueError: an id occurs twice.
    """

    def __init__(self, shards: Sequence[ShardRows]):
        self.count, self.in_order = 0, True
        for shard in shards:
            ids = shard.column(rows.ID)
            # The common case, 0 to N - 1 in order, needs no table.
            self.in_order &= np.array_equal(ids, np.arange(len(ids)) + self.count)
            self.count += len(ids)
        if self.in_order:
            return
        ids = np.concatenate([shard.column(rows.ID) for shard in shards])
        self.order = np.argsort(ids, kind="stable")
        self.ids = ids[self.order]
        repeated = np.unique(self.ids[1:][self.ids[1:] == self.ids[:-1]])
        if len(repeated):
            raise ValueError(
                f"Sample ids must be unique, but {len(repeated)} occur more than once, "
                f"such as {repeated[:5].tolist()}. Number the samples, and don't shuffle "
                "the data that a cache is built from."
            )

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Return the row index of each sample.

        Raises:
            ValueError: a sample is not in the cache.
        """
        ids = np.asarray(ids).astype("int64")
        if self.in_order:
            positions, exists = ids, (ids >= 0) & (ids < self.count)
        else:
            ranks = np.minimum(np.searchsorted(self.ids, ids), self.count - 1)
            positions, exists = self.order[ranks], self.ids[ranks] == ids
        if not exists.all():
            raise ValueError(
                f"The cache has no samples with the ids {ids[~exists][:5].tolist()}; it "
                f"has {self.count} samples. Build it from all data that you train on."
            )
        return positions
