"""Shards: files of rows in TFRecord's format, with its checksums.

Rows are of one size, so that any of them is found without reading the others. A record
holds a block of rows; the last record is a note in JSON.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import struct
from collections.abc import Iterable

import numpy as np

# Bytes before and after the data of a record: its length, and two checksums.
BEFORE, AFTER = 12, 4


class Shards:
    """How rows lie in the files of a folder.

    Args:
        folder: of the files.
        row: the NumPy type of a row.
        counts: how many rows each shard has.
    """

    def __init__(self, folder: pathlib.Path, row: np.dtype, counts: list[int]):
        self.folder, self.row, self.counts = folder, row, counts
        self.block = max(1, min(1024, 2**20 // row.itemsize))

    def path(self, shard: int) -> pathlib.Path:
        """Give a shard's file."""
        return self.folder / f"shard-{shard:05d}.tfrecord"

    def write(self, shard: int, parts: Iterable[np.ndarray], note) -> None:
        """Write a shard beside its place, then move it there: it is whole or absent.

        Args:
            shard: its number.
            parts: rows, as many at a time as there are.
            note: called when all are written; gives what JSON can hold.
        """
        path = self.path(shard)
        beside = path.with_suffix(f".{socket.gethostname()}.{os.getpid()}.part")
        try:
            with open(beside, "wb") as file:
                waiting = np.empty(0, self.row)
                for rows in parts:
                    waiting = np.concatenate([waiting, rows])
                    while len(waiting) >= self.block:
                        file.write(_record(waiting[: self.block].tobytes()))
                        waiting = waiting[self.block :]
                if len(waiting):
                    file.write(_record(waiting.tobytes()))
                file.write(_record(json.dumps(note()).encode()))
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def damage(self, shard: int) -> str | None:
        """Say what is wrong with a shard's file, None if nothing is."""
        path = self.path(shard)
        if not path.exists():
            return "is missing"
        contents = np.memmap(path, mode="r") if path.stat().st_size else b""
        place = 0
        for length in self._lengths(shard):
            record = contents[place : place + BEFORE + length + AFTER]
            if len(record) < BEFORE + length + AFTER:
                return "is too short"
            if not _is_whole(record, length):
                return f"is damaged at byte {place}"
            place += len(record)
        return None if _noted(contents[place:]) is not None else "has no end"

    def remove_damaged(self) -> None:
        """Remove the shards that are there and not whole."""
        for shard in range(len(self.counts)):
            if self.path(shard).exists() and self.damage(shard) is not None:
                self.path(shard).unlink(missing_ok=True)

    def note(self, shard: int):
        """Give the note of a shard that is whole."""
        start = sum(BEFORE + length + AFTER for length in self._lengths(shard))
        return _noted(np.memmap(self.path(shard), mode="r")[start:])

    def open(self, shard: int) -> ShardRows:
        """Give a shard's rows, which are read when they are asked for."""
        return ShardRows(self.path(shard), self.row, self.block, self.counts[shard])

    def _lengths(self, shard: int) -> list[int]:
        """Give the bytes of rows in each record."""
        blocks, left = divmod(self.counts[shard], self.block)
        rows = [self.block] * blocks + [left] * bool(left)
        return [count * self.row.itemsize for count in rows]


class ShardRows:
    """The rows of a shard, on disk: whole blocks, and the last one, which is smaller."""

    def __init__(self, path: pathlib.Path, row: np.dtype, block: int, count: int):
        contents = np.memmap(path, mode="r")
        blocks, left = divmod(count, block)
        stride = BEFORE + block * row.itemsize + AFTER
        steps = stride, row.itemsize
        self.block = block
        self.whole = np.ndarray((blocks, block), row, contents, BEFORE, steps)
        # A block's place is kept for the last one even if it is empty.
        start = blocks * stride + BEFORE if left else 0
        self.last = np.ndarray((left,), row, contents, start)

    def column(self, name: str) -> np.ndarray:
        """Read one field of all rows."""
        return np.concatenate([self.whole[name].ravel(), self.last[name]])

    def whole_shard(self) -> np.ndarray:
        """Read all rows."""
        return np.concatenate([self.whole.ravel(), self.last])

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """Read the rows at these places."""
        blocks, places = np.divmod(places, self.block)
        in_last = blocks >= len(self.whole)
        if not in_last.any():
            return self.whole[blocks, places]
        rows = np.empty(len(places), self.last.dtype)
        rows[in_last] = self.last[places[in_last]]
        rows[~in_last] = self.whole[blocks[~in_last], places[~in_last]]
        return rows


def _record(contents: bytes) -> bytes:
    length = struct.pack("<Q", len(contents))
    return length + _checksum(length) + contents + _checksum(contents)


def _checksum(contents) -> bytes:
    """Give TFRecord's masked CRC-32C."""
    import google_crc32c

    crc = google_crc32c.value(contents)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def _is_whole(record: np.ndarray, length: int) -> bool:
    head = record[:8].tobytes()
    if head != struct.pack("<Q", length) or record[8:12].tobytes() != _checksum(head):
        return False
    return record[-AFTER:].tobytes() == _checksum(np.asarray(record[BEFORE:-AFTER]))


def _noted(contents):
    """Give what the last record says, None if it is not whole."""
    if len(contents) < BEFORE + AFTER:
        return None
    (length,) = struct.unpack("<Q", np.asarray(contents[:8]).tobytes())
    if len(contents) != BEFORE + length + AFTER or not _is_whole(contents, length):
        return None
    return json.loads(np.asarray(contents[BEFORE:-AFTER]).tobytes())
