"""Arrays in one file that is whole at any moment, and known for damaged if it is."""

from __future__ import annotations

import os
import re

import keras
import numpy as np
from keras import ops


class Damaged(Exception):
    """A file that is there and does not hold what was written."""


def write(path: str, arrays: dict) -> str:
    """Write arrays by name beside a path, down to the disk.

    Returns:
        The path that was written; `os.replace` it to where it belongs.
    """
    part = path + ".part"
    with open(part, "wb") as file:
        np.savez(file, count=len(arrays), **arrays)
        file.flush()
        os.fsync(file.fileno())
    return part


def read(path: str) -> dict:
    """Read all arrays; the format's checksums are looked at on the way.

    Raises:
        Damaged: an array is not what was written, or one is missing.
        OSError: the file can't be opened.
    """
    with open(path, "rb") as opened:
        try:
            with np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)
            count = int(arrays.pop("count"))
        # Damage may be met as any error of the parts that read it.
        except Exception as error:
            raise Damaged(f"{type(error).__name__}: {error}") from error
    if len(arrays) != count:
        raise Damaged(f"{len(arrays)} of {count} arrays are there")
    return arrays


def numbered(variables, prefix: str) -> dict:
    """Name variables by their places and names, without what Keras counts up."""
    plain = [re.sub(r"_\d+$", "", v.name) for v in variables]
    return {f"{prefix} {i} {plain[i]}": v for i, v in enumerate(variables)}


def array(variable) -> np.ndarray:
    """Give a variable's value, in a type that such a file can hold."""
    # NumPy's files know no bfloat16; float32 holds its values exactly.
    wide = keras.backend.standardize_dtype(variable.dtype) == "bfloat16"
    value = ops.cast(variable, "float32") if wide else variable
    return ops.convert_to_numpy(value)


def differing(variables: dict, arrays: dict) -> list[str]:
    """List the names that are only among variables or arrays, or whose shapes differ."""
    shapes = {(name, tuple(v.shape)) for name, v in variables.items()}
    return sorted(
        {name for name, _ in shapes ^ {(n, x.shape) for n, x in arrays.items()}}
    )
