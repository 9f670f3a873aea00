"""Atomic writes of files, and arrays in files with verified checksums."""

import contextlib
import os
import pathlib
import re
import socket
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops


class Damaged(Exception):
    """A file that exists and does not hold what was written."""


@contextlib.contextmanager
def write_then_rename(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a path beside another to write to, then rename it: a file is whole or absent.

    The path has the same ending and is different for each process.
    """
    path = pathlib.Path(path)
    with _beside(path) as beside:
        yield beside
        _flush(beside)
        os.replace(beside, path)


def write_first(path: str | os.PathLike, contents: bytes) -> bool:
    """Write a file that is whole or absent; return False if there is one already.

    Of several processes that write at once, one returns True.
    """
    path = pathlib.Path(path)
    with _beside(path) as beside:
        beside.write_bytes(contents)
        _flush(beside)
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        except OSError:
            # A file system without hard links.
            return _write_exclusively(path, contents)
    return True


def _write_exclusively(path: pathlib.Path, contents: bytes) -> bool:
    try:
        with open(path, "xb") as file:
            file.write(contents)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def _beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the path of this process's temporary file, which is removed at the end."""
    host = socket.gethostname()
    # Keras saves weights only to a path that ends in ".weights.h5".
    stem, dot, ending = path.name.partition(".")
    beside = path.with_name(f"{stem}.{host}.{os.getpid()}.part{dot}{ending}")
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def _flush(path: pathlib.Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write_arrays(path: str | os.PathLike, arrays: dict) -> None:
    """Write arrays by name into a file that is whole or absent."""
    with write_then_rename(path) as beside:
        np.savez(beside, count=len(arrays), **arrays)


def read_arrays(path: str) -> dict:
    """Return all arrays of a file, once their checksums are verified.

    Raises:
        Damaged: an array is not what was written, or one is missing.
        OSError: the file could not be opened.
    """
    with open(path, "rb") as opened:
        try:
            with np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)
            count = int(arrays.pop("count"))
        # Damage surfaces as any error of the parts that read it.
        except Exception as error:
            raise Damaged(f"{type(error).__name__}: {error}") from error
    if len(arrays) != count:
        raise Damaged(f"{len(arrays)} of {count} arrays are there")
    return arrays


def numbered(variables, prefix: str) -> dict:
    """Name variables by index and name, without the numbers by which Keras counts names.

    A model that is created again in one process gets other numbers.
    """
    named = (f"{prefix} {i} {v.name}" for i, v in enumerate(variables))
    return dict(zip(map(without_counts, named), variables, strict=True))


def without_counts(name: str) -> str:
    """Return a variable's name without the numbers by which Keras counts names."""
    return re.sub(r"_\d+(?=_|$)", "", name)


def to_numpy(variable, dtype: str | None = None) -> np.ndarray:
    """Return the value of a variable or tensor, in a type that NumPy's files can hold.

    The default is its own type, or float32 for bfloat16, whose values that holds exactly.
    """
    wide = keras.backend.standardize_dtype(variable.dtype) == "bfloat16"
    value = ops.cast(variable, "float32") if wide else variable
    return np.asarray(ops.convert_to_numpy(value), dtype)


def differing(variables: dict, arrays: dict) -> list[str]:
    """Return the names that only one side has, or whose shapes differ."""
    expected = {(name, tuple(v.shape)) for name, v in variables.items()}
    found = {(name, x.shape) for name, x in arrays.items()}
    return sorted({name for name, _ in expected ^ found})
