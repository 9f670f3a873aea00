"""What a cache holds, and of what it was made: the file beside the shards."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from keras_distill.teachers.cache import forms, rows
from keras_distill.teachers.cache.shards import Shards

FILE, FORMAT = "cache.json", 1


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a cache holds.

    Args:
        made_of: fingerprints of teacher, preprocessing, data and views, the taps with
            their forms, and the temperature, by name.
        shapes: of what each tap gives of a sample, by its text.
        samples: how many there are.
        views: of each sample.
        shard_rows: rows of a shard; the last one of a view may have fewer.
        wide_ids: whether there are ids beyond 32 bits.
    """

    made_of: dict
    shapes: dict
    samples: int
    views: int
    shard_rows: int
    wide_ids: bool

    @property
    def forms(self) -> dict:
        """Give what is kept of each tap, by its text."""
        return {
            tap: forms.from_config(config)
            for tap, config in self.made_of["taps"].items()
        }

    @property
    def per_view(self) -> int:
        """Give the number of shards of a view."""
        return -(-self.samples // self.shard_rows)

    def shards(self, folder: pathlib.Path) -> Shards:
        """Give how the rows lie in files."""
        parts = {tap: form.parts(self.shapes[tap]) for tap, form in self.forms.items()}
        row = rows.row_type(parts, self.wide_ids)
        last = self.samples - (self.per_view - 1) * self.shard_rows
        counts = [self.shard_rows] * (self.per_view - 1) + [last]
        return Shards(folder, row, counts * self.views)

    def write(self, folder: pathlib.Path) -> None:
        """Write the file; it is whole or absent."""
        text = json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1)
        beside = folder / f"{FILE}.{os.getpid()}.part"
        beside.write_text(text, "utf-8")
        os.replace(beside, folder / FILE)


def read(folder: pathlib.Path) -> Contents | None:
    """Read a folder's file; None if there is none.

    Raises:
        ValueError: it can't be read, or is of another format.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        if found.pop("format") != FORMAT:
            raise ValueError("another format")
        found["shapes"] = {tap: tuple(s) for tap, s in found["shapes"].items()}
        return Contents(**found)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{path}' can't be read as the contents of a cache ({error}). Remove the "
            "folder and make the cache anew."
        ) from error


class Index:
    """Where the row of a sample is.

    Args:
        parts: give ids of samples, in the order of their rows, a part after the other.

    Raises:
        ValueError: an id is there twice.
    """

    def __init__(self, parts: Sequence[Callable]):
        self.count, self.in_order = 0, True
        for part in parts:
            ids = part()
            # The common case, 0 to N - 1 in order, needs no table.
            self.in_order &= np.array_equal(ids, np.arange(len(ids)) + self.count)
            self.count += len(ids)
        if self.in_order:
            return
        ids = np.concatenate([part() for part in parts])
        self.order = np.argsort(ids, kind="stable")
        self.ids = ids[self.order]
        twice = self.ids[1:][self.ids[1:] == self.ids[:-1]]
        if len(twice):
            raise ValueError(
                f"Sample ids must be of one sample each, but {len(np.unique(twice))} are "
                f"there more than once, as {np.unique(twice)[:5].tolist()}. Number the "
                "samples, and don't shuffle the data that a cache is made of."
            )

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Give the place of each sample's row.

        Raises:
            ValueError: a sample is not there.
        """
        ids = np.asarray(ids).astype("int64")
        if self.in_order:
            places, known = ids, (ids >= 0) & (ids < self.count)
        else:
            found = np.minimum(np.searchsorted(self.ids, ids), self.count - 1)
            places, known = self.order[found], self.ids[found] == ids
        if not known.all():
            raise ValueError(
                f"The cache has no sample of the ids {ids[~known][:5].tolist()}; it "
                f"knows {self.count}. Make it of all data that you train on."
            )
        return places
