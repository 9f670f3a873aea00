"""Rows: what is kept of a sample, side by side."""

from __future__ import annotations

import functools

import keras
import numpy as np

ID, SEEN = "id", "seen"
# What float16 loses of a sketch, and what another machine's rounding may add.
TOLERANCE = 0.01


def row_type(kept: dict, wide_ids: bool) -> np.dtype:
    """Give the type of a row.

    Args:
        kept: for each tap's text, the type and shape of its parts by name.
        wide_ids: whether there are ids beyond 32 bits.
    """
    fields = [(ID, "<i8" if wide_ids else "<u4"), (SEEN, "<f2", (2,))]
    for tap, parts in kept.items():
        for name, (dtype, shape) in parts.items():
            little = np.dtype(dtype).newbyteorder("<")
            fields.append((f"{tap}:{name}", little.str, tuple(shape)))
    return np.dtype(fields)


def pack(row: np.dtype, ids, seen, kept: dict) -> np.ndarray:
    """Lay arrays of a batch out as rows.

    Args:
        row: type of a row.
        ids: of the samples, `(B,)`.
        seen: what `sketch` gives of them.
        kept: for each tap's text, arrays by the part's name.
    """
    rows = np.empty(len(ids), row)
    rows[ID], rows[SEEN] = ids, seen
    for tap, parts in kept.items():
        for name, values in parts.items():
            rows[f"{tap}:{name}"] = values
    return rows


def unpack(rows: np.ndarray) -> dict:
    """Give, for each tap's text, arrays by the part's name; ids of classes as int32."""
    kept = {}
    for field in rows.dtype.names[2:]:
        tap, _, name = field.rpartition(":")
        values = np.ascontiguousarray(rows[field])
        if values.dtype.kind == "u":
            values = values.astype("int32")
        kept.setdefault(tap, {})[name] = values
    return kept


def sketch(inputs) -> np.ndarray:
    """Give two numbers of each sample, `(B, 2)`, that tell whether it has changed.

    The first is the projection on signs drawn once, of the sample scaled to length 1,
    the second the logarithm of its length. Flips, shifts and crops change the first,
    brightness the second; rounding changes neither by more than `TOLERANCE`.

    Args:
        inputs: a structure of arrays, batch first.
    """
    leaves = [np.asarray(x) for x in keras.tree.flatten(inputs)]
    flat = [x.reshape(len(x), -1).astype("float32") for x in leaves]
    flat = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
    length = np.sqrt(np.einsum("ij,ij->i", flat, flat))
    along = flat @ signs(flat.shape[1]) / np.maximum(length, 1e-30)
    return np.stack([along, np.log(np.maximum(length, 1e-30))], axis=1)


@functools.lru_cache(maxsize=4)
def signs(count: int) -> np.ndarray:
    """Give the signs that `sketch` projects on, `(count,)`."""
    return np.random.default_rng(0).choice(np.float32([-1, 1]), size=count)


def changed(seen: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Tell of which samples the sketch is another than the one that was kept."""
    gap = np.abs(seen.astype("float32") - kept.astype("float32"))
    return (gap > TOLERANCE + 1e-3 * np.abs(kept)).any(axis=1)
