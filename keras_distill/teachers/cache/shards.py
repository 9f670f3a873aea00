"""Shards: files of rows in the TFRecord format, with its checksums.

All rows have one size, so any of them can be read without the others. A record holds a
block of rows; the last record is a note in JSON.
"""

import json
import pathlib
import struct
from collections.abc import Iterable

import numpy as np

from keras_distill._backend.files import write_then_rename

# Bytes before and after the data of a record: its length and two checksums.
BEFORE, AFTER = 12, 4


class Shards:
    """Files of rows in a folder; `counts` has the number of rows of each shard."""

    def __init__(self, folder: pathlib.Path, row: np.dtype, counts: list[int]):
        self.folder, self.row, self.counts = folder, row, counts
        self.block = max(1, min(1024, 2**20 // row.itemsize))

    def path(self, shard: int) -> pathlib.Path:
        """Return the path of a shard's file."""
        return self.folder / f"shard-{shard:05d}.tfrecord"

    def write(self, shard: int, parts: Iterable[np.ndarray], note) -> None:
        """Write a shard's file, which is complete or absent at any moment.

        Args:
            shard: index of the shard.
            parts: rows, in parts of any size.
            note: called when all rows are written; returns what JSON can hold.
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
            file.write(_record(json.dumps(note()).encode()))

    def damage(self, shard: int) -> str | None:
        """Return what is wrong with a shard's file, or None if it is complete."""
        path = self.path(shard)
        if not path.exists():
            return "is missing"
        contents = np.memmap(path, mode="r") if path.stat().st_size else b""
        start = 0
        for length in self._lengths(shard):
            record = contents[start : start + BEFORE + length + AFTER]
            if len(record) < BEFORE + length + AFTER:
                return "is too short"
            if not _is_valid(record, length):
                return f"is damaged at byte {start}"
            start += len(record)
        return None if _read_note(contents[start:]) is not None else "has no valid end"

    def remove_damaged(self) -> None:
        """Remove the shards that exist and are damaged."""
        for shard in range(len(self.counts)):
            if self.path(shard).exists() and self.damage(shard) is not None:
                self.path(shard).unlink(missing_ok=True)

    def note(self, shard: int):
        """Return the note of a complete shard."""
        start = sum(BEFORE + length + AFTER for length in self._lengths(shard))
        return _read_note(np.memmap(self.path(shard), mode="r")[start:])

    def open(self, shard: int) -> "ShardRows":
        """Return a shard's rows, which are read lazily."""
        return ShardRows(self.path(shard), self.row, self.block, self.counts[shard])

    def _lengths(self, shard: int) -> list[int]:
        """Return the number of bytes of the rows in each record."""
        blocks, left = divmod(self.counts[shard], self.block)
        rows = [self.block] * blocks + [left] * bool(left)
        return [count * self.row.itemsize for count in rows]


class ShardRows:
    """The rows of a shard on disk: full blocks, and a smaller last one."""

    def __init__(self, path: pathlib.Path, row: np.dtype, block: int, count: int):
        contents = np.memmap(path, mode="r")
        blocks, left = divmod(count, block)
        stride = BEFORE + block * row.itemsize + AFTER
        steps = stride, row.itemsize
        self.block = block
        self.full = np.ndarray((blocks, block), row, contents, BEFORE, steps)
        start = blocks * stride + BEFORE if left else 0
        self.last = np.ndarray((left,), row, contents, start)

    def column(self, name: str) -> np.ndarray:
        """Read one field of all rows."""
        return np.concatenate([self.full[name].ravel(), self.last[name]])

    def all_rows(self) -> np.ndarray:
        """Read all rows."""
        return np.concatenate([self.full.ravel(), self.last])

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Read the rows at some indices."""
        blocks, indices = np.divmod(indices, self.block)
        in_last = blocks >= len(self.full)
        if not in_last.any():
            return self.full[blocks, indices]
        rows = np.empty(len(indices), self.last.dtype)
        rows[in_last] = self.last[indices[in_last]]
        rows[~in_last] = self.full[blocks[~in_last], indices[~in_last]]
        return rows


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


def _read_note(contents):
    """Return the note in the last record, or None if the record is damaged."""
    if len(contents) < BEFORE + AFTER:
        return None
    (length,) = struct.unpack("<Q", np.asarray(contents[:8]).tobytes())
    if len(contents) != BEFORE + length + AFTER or not _is_valid(contents, length):
        return None
    return json.loads(np.asarray(contents[BEFORE:-AFTER]).tobytes())
