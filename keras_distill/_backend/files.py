"""Atomic writes of files, what dead processes leave of them, and arrays in files."""

import contextlib
import json
import os
import pathlib
import re
import socket
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import ops

from keras_distill._backend.archives import Archive, Damaged, Header

# Temporary files of other machines that were not written to for so many seconds.
LEFT_OVER = 24 * 3600.0
# NAME.HOST.PROCESS.part.SUFFIX
_PART = re.compile(r"([^.]*)\.(.+)\.(\d+)\.part(\..*)?")


@contextlib.contextmanager
def write_then_rename(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a path beside another to write to, then rename it: a file is whole or absent.

    The path has the same ending and is different for each process.
    """
    path = pathlib.Path(path)
    remove_left_over(path.parent, path.name)
    with _beside(path) as beside:
        yield beside
        _flush(beside)
        os.replace(beside, path)


def write_first(path: str | os.PathLike, contents: bytes) -> bool:
    """Write a file that is whole or absent; return False if there is one already.

    Of several processes that write at once, one returns True.
    """
    path = pathlib.Path(path)
    remove_left_over(path.parent, path.name)
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


def remove_left_over(folder: str | os.PathLike, name: str | None = None) -> None:
    """Remove temporary files of writers that are gone, or those of one file alone.

    A writer of this machine is gone if its process is; one of another machine if it has
    not written for a day. Errors are ignored: a folder may be missing or read-only.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            part = _PART.fullmatch(entry.name)
            if part is None or name not in (None, part[1] + (part[4] or "")):
                continue
            with contextlib.suppress(OSError):
                if _is_gone(entry, host=part[2], process=part[3]):
                    os.unlink(entry.path)


def _is_gone(entry: os.DirEntry, host: str, process: str) -> bool:
    if host == socket.gethostname():
        return not is_alive(process)
    return time.time() - entry.stat().st_mtime > LEFT_OVER


def is_alive(process: str) -> bool:
    """Whether a process of this machine may be running, by its number."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (ValueError, PermissionError):
        pass
    return True


def read_json(path: str | os.PathLike, remedy: str):
    """Return what a file of JSON holds.

    Raises:
        ValueError: it is damaged; `remedy` is what to do.
    """
    try:
        return json.loads(pathlib.Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not valid JSON ({error}). {remedy}") from error


def write_arrays(path: str | os.PathLike, arrays: dict) -> None:
    """Write arrays by name into a file that is whole or absent."""
    with write_then_rename(path) as beside:
        np.savez(beside, count=len(arrays), **arrays)


def read_arrays(
    path: str | os.PathLike, check: Callable[[dict[str, Header]], None] | None = None
) -> dict[str, np.ndarray]:
    """Return all arrays of a file, once their checksums are verified.

    Args:
        path: of the file, which `write_arrays` wrote.
        check: called with the headers by name before an array is read; may raise.

    Raises:
        Damaged: an array is not what was written, or one is missing.
        OSError: the file could not be opened.
    """
    with Archive(path) as archive:
        headers = dict(archive.headers)
        count = headers.pop("count", None)
        if count is None or count.shape or count.dtype.kind not in "iu":
            raise Damaged("it is not a file of keras_distill")
        if check is not None:
            check(headers)
        arrays = archive.read()
    count = int(arrays.pop("count"))
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
