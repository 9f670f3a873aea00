"""Shards: files of rows in the TFRecord format, with its checksums.

All rows have one size, so any of them can be read without the others. A record holds a
block of rows; the last record is a note in JSON.
"""

import functools
import json
import pathlib
import struct
from collections.abc import Iterable

import numpy as np

from keras_distill._backend.files import write_then_rename
from keras_distill.teachers.cache.mapped_files import MappedFile

# Bytes before and after the data of a record: its length and two checksums.
BEFORE, AFTER = 12, 4
MOST_OF_NOTE = 2**16


class Shards:
    """Files of rows in a folder, each labelled with its cache, its view and its index.

    Args:
        folder: of the files.
        row: dtype of a row.
        counts: number of rows of each shard, view after view.
        cache: checksum of the cache's description; None for shards without labels.
        per_view: number of shards of a view.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        row: np.dtype,
        counts: list[int],
        cache: str | None = None,
        per_view: int = 1,
    ):
        self.folder, self.row, self.counts = folder, row, counts
        self.cache, self.per_view = cache, per_view
        self.block = max(1, min(1024, 2**20 // row.itemsize))

    def path(self, shard: int) -> pathlib.Path:
        """Return the path of a shard's file."""
        return self.folder / f"shard-{shard:05d}.tfrecord"

    def write(self, shard: int, parts: Iterable[np.ndarray], note) -> None:
        """Write a shard's file, which is complete or absent at any moment.

        Args:
            shard: index of the shard.
            parts: rows, in parts of any size.
            note: called when all rows are written; returns a dict that JSON can hold.
        """
        with write_then_rename(self.path(shard)) as beside, open(beside, "wb") as file:
            waiting = np.empty(0, self.row)
            for rows in parts:
                waiting = np.concatenate([waiting, rows])
                while len(waiting) >= self.block:
                    file.write(_record(waiting[: self.block].tobytes()))
                    waiting = waiting[self.block :]
            if len(waiting):
                file.write(_record(waiting.tobytes()))
            note = {**note(), **self._label(shard)}
            file.write(_record(json.dumps(note).encode()))

    def damage(self, shard: int) -> str | None:
        """Return what is wrong with a shard's file, or None if it is complete."""
        return self.examine(shard)[0]

    def examine(self, shard: int) -> tuple[str | None, dict]:
        """Return what is wrong with a shard's file, or None, and its note."""
        path = self.path(shard)
        if not path.exists():
            return "is missing", {}
        contents = np.memmap(path, mode="r") if path.stat().st_size else b""
        start = 0
        for length in self._lengths(shard):
            record = contents[start : start + BEFORE + length + AFTER]
            if len(record) < BEFORE + length + AFTER:
                return "is too short", {}
            if not _is_valid(record, length):
                return f"is damaged at byte {start}", {}
            start += len(record)
        note = _read_note(contents[start:])
        if note is None:
            return "has no valid end", {}
        return self._misplaced(note, self._label(shard)), note

    def remove_damaged(self) -> None:
        """Remove the shards that exist and are damaged."""
        for shard in range(len(self.counts)):
            if self.path(shard).exists() and self.damage(shard) is not None:
                self.path(shard).unlink(missing_ok=True)

    def open(self, shard: int) -> "ShardRows":
        """Return a shard's rows, which are read lazily."""
        return ShardRows(self.path(shard), self.row, self.block, self.counts[shard])

    def _label(self, shard: int) -> dict:
        if self.cache is None:
            return {}
        view, index = divmod(shard, self.per_view)
        return {"cache": self.cache, "view": view, "shard": index}

    def _misplaced(self, note: dict, label: dict) -> str | None:
        """Return which shard a file has the note of, if it is another one."""
        if label.items() <= note.items():
            return None
        if note.get("cache") != self.cache:
            return "is of another cache"
        return f"is shard {note.get('shard')} of view {note.get('view')}"

    def _lengths(self, shard: int) -> list[int]:
        """Return the number of bytes of the rows in each record."""
        blocks, left = divmod(self.counts[shard], self.block)
        rows = [self.block] * blocks + [left] * bool(left)
        return [count * self.row.itemsize for count in rows]


class ShardRows:
    """The rows of a shard on disk: full blocks, and a smaller last one."""

    def __init__(self, path: pathlib.Path, row: np.dtype, block: int, count: int):
        self.row, self.block = row, block
        self.file = MappedFile(path, functools.partial(_rows, row, block, count))

    def column(self, name: str) -> np.ndarray:
        """Read one field of all rows."""
        full, last = self.file.arrays()
        return np.concatenate([full[name].ravel(), last[name]])

    def all_rows(self) -> np.ndarray:
        """Read all rows."""
        full, last = self.file.arrays()
        return np.concatenate([full.ravel(), last])

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Read the rows at some indices."""
        full, last = self.file.arrays()
        blocks, indices = np.divmod(indices, self.block)
        in_last = blocks >= len(full)
        if not in_last.any():
            return full[blocks, indices]
        rows = np.empty(len(indices), self.row)
        rows[in_last] = last[indices[in_last]]
        rows[~in_last] = full[blocks[~in_last], indices[~in_last]]
        return rows


def _rows(row: np.dtype, block: int, count: int, contents) -> tuple:
    """Return the rows of full blocks, `(blocks, block)`, and those of the last."""
    blocks, left = divmod(count, block)
    stride = BEFORE + block * row.itemsize + AFTER
    full = np.ndarray((blocks, block), row, contents, BEFORE, (stride, row.itemsize))
    start = blocks * stride + BEFORE if left else 0
    return full, np.ndarray((left,), row, contents, start)


def _record(contents: bytes) -> bytes:
    length = struct.pack("<Q", len(contents))
    return length + _checksum(length) + contents + _checksum(contents)


def _checksum(contents) -> bytes:
    """Return the masked CRC-32C of TFRecord files."""
    import google_crc32c

    crc = google_crc32c.value(contents)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def _is_valid(record: np.ndarray, length: int) -> bool:
    head = record[:8].tobytes()
    if head != struct.pack("<Q", length) or record[8:12].tobytes() != _checksum(head):
        return False
    return record[-AFTER:].tobytes() == _checksum(np.asarray(record[BEFORE:-AFTER]))


def _read_note(contents) -> dict | None:
    """Return the note in the last record, or None if the record is damaged."""
    if not BEFORE + AFTER <= len(contents) <= MOST_OF_NOTE:
        return None
    (length,) = struct.unpack("<Q", np.asarray(contents[:8]).tobytes())
    if len(contents) != BEFORE + length + AFTER or not _is_valid(contents, length):
        return None
    try:
        note = json.loads(np.asarray(contents[BEFORE:-AFTER]).tobytes())
    except (ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None
