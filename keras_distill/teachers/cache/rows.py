"""Rows: the cached values of a sample, side by side."""

import functools

import keras
import numpy as np

ID, SKETCH = "id", "sketch"
# Allows for a sketch's rounding to float16, and for another machine's rounding.
TOLERANCE = 0.01


def row_type(parts_of_taps: dict, wide_ids: bool) -> np.dtype:
    """Return the dtype of a row; arguments as `parts` and `wide_ids` of `Contents`."""
    fields = [(ID, "<i8" if wide_ids else "<u4"), (SKETCH, "<f2", (2,))]
    for tap, parts in parts_of_taps.items():
        for name, (dtype, shape) in parts.items():
            little = np.dtype(dtype).newbyteorder("<")
            fields.append((f"{tap}:{name}", little.str, tuple(shape)))
    return np.dtype(fields)


def pack(row: np.dtype, ids, sketches, values_of_taps: dict) -> np.ndarray:
    """Pack ids `(B,)`, sketches `(B, 2)` and, by tap and name, arrays into rows."""
    rows = np.empty(len(ids), row)
    rows[ID], rows[SKETCH] = ids, sketches
    for tap, parts in values_of_taps.items():
        for name, values in parts.items():
            rows[f"{tap}:{name}"] = values
    return rows


def unpack(rows: np.ndarray) -> dict:
    """Return, for each tap's text, its arrays by name; class indices become int32."""
    values_of_taps = {}
    for field in rows.dtype.names[2:]:
        tap, _, name = field.rpartition(":")
        values = np.ascontiguousarray(rows[field])
        if values.dtype.kind == "u":
            values = values.astype("int32")
        values_of_taps.setdefault(tap, {})[name] = values
    return values_of_taps


def sketch(inputs) -> np.ndarray:
    """Return two numbers per sample, `(B, 2)`, by which a changed sample is recognized.

    The first is the projection of the sample, scaled to norm 1, on fixed random signs,
    the second the logarithm of its norm. Flips, shifts and crops change the first,
    brightness the second; rounding changes neither by more than `TOLERANCE`.
    """
    leaves = [np.asarray(x) for x in keras.tree.flatten(inputs)]
    flat = [x.reshape(len(x), -1).astype("float32") for x in leaves]
    flat = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
    norm = np.maximum(np.sqrt(np.einsum("ij,ij->i", flat, flat)), 1e-30)
    return np.stack([flat @ signs(flat.shape[1]) / norm, np.log(norm)], axis=1)


@functools.lru_cache(maxsize=4)
def signs(count: int) -> np.ndarray:
    """Return the signs that `sketch` projects on, `(count,)`."""
    return np.random.default_rng(0).choice(np.float32([-1, 1]), size=count)


def changed(sketches: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Return `(B,)`, True where the sketch of a sample differs from the stored one."""
    gap = np.abs(sketches.astype("float32") - stored.astype("float32"))
    return (gap > TOLERANCE + 1e-3 * np.abs(stored)).any(axis=1)
