"""The file beside the shards: what a cache contains and what it was made of."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_distill._backend.files import write_first
from keras_distill._backend.keras_layers import with_mask
from keras_distill.teachers.cache import forms, rows
from keras_distill.teachers.cache.shards import ShardRows, Shards

# Caches of format 1 have no checksum of this file, and shards without their numbers.
FILE, FORMAT = "cache.json", 2
# The name of a tap's mask among its arrays.
MASK = "mask"
# Bounds for a file from elsewhere: its bytes, and the shards that it may list.
MOST_BYTES, MOST_SHARDS = 2**24, 10**7


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
        exact: for each of the teacher's inputs, whether it is of integers, which are
            compared exactly. Default: none is.
        masks: shape of a sample's mask at each tap that has one. Default: none has.
        format: of the files.
    """

    made_of: dict
    shapes: dict
    samples: int
    views: int
    shard_rows: int
    wide_ids: bool
    exact: tuple[bool, ...] = ()
    masks: dict = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    @functools.cached_property
    def checksum(self) -> str:
        """The SHA-256 of all fields, which the notes of the shards have too."""
        text = json.dumps(self._fields(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def forms(self) -> dict:
        """The form of each tap's cached values, by the tap's text."""
        configs = self.made_of["taps"]
        return {tap: forms.from_config(config) for tap, config in configs.items()}

    @property
    def parts(self) -> dict:
        """For each tap's text, dtype and shape of a sample's arrays, by name."""
        parts = {tap: form.parts(self.shapes[tap]) for tap, form in self.forms.items()}
        for tap, shape in self.masks.items():
            parts[tap][MASK] = "bool", shape
        return parts

    @property
    def per_view(self) -> int:
        """The number of shards of a view."""
        return -(-self.samples // self.shard_rows)

    def decode(self, tap: str, stored: dict):
        """Return the tensor of a tap, with its mask, from a batch's arrays by name."""
        tensor = self.forms[tap].decode(stored, self.shapes[tap])
        if tap not in self.masks:
            return tensor
        mask = ops.convert_to_tensor(stored[MASK], "bool")
        return with_mask(ops.convert_to_tensor(tensor), mask)

    def shards(self, folder: pathlib.Path) -> Shards:
        """Return the files of the rows in a folder."""
        row = rows.row_type(self.parts, self.wide_ids, self.exact)
        last = self.samples - (self.per_view - 1) * self.shard_rows
        counts = [self.shard_rows] * (self.per_view - 1) + [last]
        cache = self.checksum if self.format > 1 else None
        return Shards(folder, row, counts * self.views, cache, self.per_view)

    def write(self, folder: pathlib.Path) -> bool:
        """Write the file, whole or not at all; return False if there is one already."""
        return write_first(folder / FILE, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        fields = self._fields()
        if self.format == 1:
            fields.pop("exact")
        else:
            fields["checksum"] = self.checksum
        fields = {"format": fields.pop("format"), **fields}
        return json.dumps(fields, indent=1).encode()

    def _fields(self) -> dict:
        """Return all fields; without masks those of earlier versions, which had none."""
        fields = dataclasses.asdict(self)
        return (
            fields if self.masks else {n: x for n, x in fields.items() if n != "masks"}
        )


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def read(folder: pathlib.Path) -> Contents | None:
    """Return the contents of the cache in a folder, or None if there is no cache.

    Raises:
        ValueError: the file can't be read, is damaged or has another format.
    """
    path = folder / FILE
    # A link to nothing is no cache, and can't become one.
    if not os.path.lexists(path):
        return None
    try:
        contents = _read(path)
    except _UNREADABLE as error:
        raise ValueError(
            f"'{path}' can't be read as the contents of a cache ({error}). Put a copy of "
            "the file in its place, or remove the folder and build the cache again."
        ) from error
    if contents.format == 1:
        warnings.warn(
            f"The cache in '{folder}' is of an earlier version: damage to {FILE} or "
            "shards that were exchanged would not be found. Remove the folder and build "
            "the cache again.",
            stacklevel=3,
        )
    return contents


def _read(path: pathlib.Path) -> Contents:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES} bytes")
    text = path.read_bytes()
    fields = json.loads(text)
    number, checksum = fields["format"], fields.pop("checksum", None)
    if number not in (1, FORMAT):
        raise ValueError(f"its format is {number!r}, not {FORMAT}")
    fields["shapes"] = {tap: tuple(s) for tap, s in fields["shapes"].items()}
    fields["masks"] = {tap: tuple(s) for tap, s in fields.get("masks", {}).items()}
    fields["exact"] = tuple(fields.get("exact", ()))
    contents = Contents(**fields)
    # The bytes are compared too: other bytes may mean the same.
    if number > 1 and (contents.checksum != checksum or contents.to_bytes() != text):
        raise ValueError("it has changed since it was written")
    _check_numbers(contents)
    # Raises errors about forms and shapes.
    contents.shards(path.parent)
    return contents


def _check_numbers(contents: Contents) -> None:
    numbers = {n: getattr(contents, n) for n in ("samples", "views", "shard_rows")}
    for name, number in numbers.items():
        if type(number) is not int or number < 1:
            raise ValueError(f"{name} is {number!r}")
    if contents.per_view * contents.views > MOST_SHARDS:
        raise ValueError(f"it lists more than {MOST_SHARDS} shards")


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
