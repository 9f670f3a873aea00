"""NumPy archives (.npz), whose sizes, shapes and types are checked before they are read."""

import contextlib
import dataclasses
import math
import os
import stat
import zipfile

import numpy as np
from numpy.lib import format as npy

# Booleans, integers and floats.
KINDS = "biuf"


class Damaged(Exception):
    """A file that exists and does not hold what was written."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Shape and dtype of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool = False

    @property
    def nbytes(self) -> int:
        """The bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """An open archive of arrays of numbers; `headers` has their shapes by name.

    Nothing is unpacked until `read`, and no more than the directory of the file lists.

    Args:
        path: of the file.
        limit: bytes that all arrays may take unpacked. Default: those of the file, as of
            archives that are not compressed.

    Raises:
        Damaged: it is no such archive, takes more bytes or has other than numbers.
        OSError: the file could not be opened.
    """

    def __init__(self, path: str | os.PathLike, limit: int | None = None):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Damaged("it is not a file")
        self._file = open(path, "rb")  # noqa: SIM115
        try:
            with _damage():
                size = os.fstat(self._file.fileno()).st_size
                self._zip = zipfile.ZipFile(self._file)
                self._entries = self._listed(size if limit is None else limit)
                self.headers = {name: self._header(name) for name in self._entries}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *error) -> None:
        self._file.close()

    def read(self) -> dict[str, np.ndarray]:
        """Return all arrays by name, once their checksums are verified."""
        with _damage():
            return {name: self._array(name) for name in self._entries}

    def _listed(self, limit: int) -> dict:
        entries = self._zip.infolist()
        total = sum(entry.file_size for entry in entries)
        if total > limit:
            raise Damaged(
                f"unpacked it would take {total:,} bytes, more than {limit:,} bytes"
            )
        named = {entry.filename.removesuffix(".npy"): entry for entry in entries}
        if len(named) != len(entries):
            raise Damaged("two arrays have one name")
        return named

    def _header(self, name: str) -> Header:
        with self._zip.open(self._entries[name]) as part:
            header = _header(part, name)
            # Shapes may claim more than there is.
            if part.tell() + header.nbytes != self._entries[name].file_size:
                raise Damaged(f"'{name}' has another size than {header.shape}")
        return header

    def _array(self, name: str) -> np.ndarray:
        header = self.headers[name]
        with self._zip.open(self._entries[name]) as part:
            _header(part, name)
            contents, start = bytearray(header.nbytes), 0
            # Read to the end, where the checksum is verified.
            while piece := part.read(2**20):
                contents[start : start + len(piece)] = piece
                start += len(piece)
        if start != header.nbytes:
            raise Damaged(f"'{name}' is too short")
        flat = np.frombuffer(contents, header.dtype)
        return flat.reshape(header.shape, order="F" if header.fortran_order else "C")


def _header(part, name: str) -> Header:
    try:
        version = npy.read_magic(part)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        header = read[version](part)
    except Exception:
        # NumPy's advice would be to allow pickles.
        raise Damaged(f"'{name}' is no array that can be read") from None
    shape, fortran_order, dtype = header
    if dtype.hasobject or dtype.kind not in KINDS:
        raise Damaged(f"'{name}' must be numbers, but has the dtype {dtype}")
    if any(size < 0 for size in shape):
        raise Damaged(f"'{name}' has the shape {shape}")
    return Header(shape, dtype, fortran_order)


@contextlib.contextmanager
def _damage():
    """Raise `Damaged`: damage surfaces as any error of the parts that read a file."""
    try:
        yield
    except Damaged:
        raise
    except Exception as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
