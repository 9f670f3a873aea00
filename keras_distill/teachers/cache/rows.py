"""Rows: the cached values of a sample, side by side."""

import functools

import keras
import numpy as np

ID, SKETCH, DIGEST = "id", "sketch", "digest"
# Allows for a sketch's rounding to float16, and for another machine's rounding.
TOLERANCE = 0.01


def row_type(parts_of_taps: dict, wide_ids: bool, exact: tuple = ()) -> np.dtype:
    """Return the dtype of a row; `parts`, `wide_ids` and `exact` as in `Contents`."""
    fields = [(ID, "<i8" if wide_ids else "<u4")]
    if not all(exact) or not exact:
        fields.append((SKETCH, "<f2", (2,)))
    if any(exact):
        fields.append((DIGEST, "<i8"))
    for tap, parts in parts_of_taps.items():
        for name, (dtype, shape) in parts.items():
            little = np.dtype(dtype).newbyteorder("<")
            fields.append((f"{tap}:{name}", little.str, tuple(shape)))
    return np.dtype(fields)


def pack(row: np.dtype, ids, marks: dict, values_of_taps: dict) -> np.ndarray:
    """Pack ids `(B,)`, `marks` of the inputs and, by tap and name, arrays into rows."""
    rows = np.empty(len(ids), row)
    rows[ID] = ids
    for name, values in marks.items():
        rows[name] = values
    for tap, parts in values_of_taps.items():
        for name, values in parts.items():
            rows[f"{tap}:{name}"] = values
    return rows


def unpack(rows: np.ndarray) -> dict:
    """Return, for each tap's text, its arrays by name; class indices become int32."""
    values_of_taps = {}
    for field in rows.dtype.names:
        if field in (ID, SKETCH, DIGEST):
            continue
        tap, _, name = field.rpartition(":")
        values = np.ascontiguousarray(rows[field])
        if values.dtype.kind == "u":
            values = values.astype("int32")
        values_of_taps.setdefault(tap, {})[name] = values
    return values_of_taps


def marks(inputs, exact: tuple = ()) -> dict:
    """Return by field what a changed sample is recognized by.

    Args:
        inputs: arrays `(B, ...)`, in any structure.
        exact: as in `Contents`.
    """
    leaves = [np.asarray(x) for x in keras.tree.flatten(inputs)]
    exact = exact or (False,) * len(leaves)
    pairs = list(zip(leaves, exact, strict=True))
    integers = [x for x, is_exact in pairs if is_exact]
    others = [x for x, is_exact in pairs if not is_exact]
    found = {SKETCH: sketch(others)} if others else {}
    return found | ({DIGEST: digest(integers)} if integers else {})


def check_marks(found: dict, ids) -> None:
    """Check that the inputs of samples are finite, by their marks.

    Raises:
        ValueError: those of one are not, or too large to be recognized.
    """
    if SKETCH not in found:
        return
    finite = np.isfinite(found[SKETCH]).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"The teacher's inputs are not finite for {int((~finite).sum())} samples, "
            f"such as the ids {np.asarray(ids)[~finite][:5].tolist()}: they have nan or "
            "inf, or values above 1e18. Repair these samples or leave them out."
        )


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


def digest(integers) -> np.ndarray:
    """Return a number per sample, `(B,)`, of arrays of integers.

    It is the sum of the integers times fixed random odd numbers, modulo 2^64, so that a
    change of one of them always changes it.
    """
    total, start = np.uint64(0), 0
    for x in integers:
        flat = x.reshape(len(x), -1)
        factors = odd_numbers(start + flat.shape[1])[start:]
        whole = flat
        if flat.dtype.kind not in "iub":
            with np.errstate(invalid="ignore"):
                whole = flat.astype("int64")
        unsafe = {"dtype": "uint64", "casting": "unsafe"}
        total = total + np.einsum("ij,j->i", whole, factors, **unsafe)
        if whole is not flat:
            # A fraction is no integer.
            total += (whole != flat).any(axis=1).astype("uint64")
        start += flat.shape[1]
    return total.view("int64")


@functools.lru_cache(maxsize=4)
def signs(count: int) -> np.ndarray:
    """Return the signs that `sketch` projects on, `(count,)`."""
    return np.random.default_rng(0).choice(np.float32([-1, 1]), size=count)


@functools.lru_cache(maxsize=4)
def odd_numbers(count: int) -> np.ndarray:
    """Return the factors of `digest`, `(count,)`, uint64."""
    return np.random.default_rng(1).integers(0, 2**64, count, "uint64") | np.uint64(1)


def changed(found: dict, stored: np.ndarray) -> np.ndarray:
    """Return `(B,)`, True where the marks of a sample differ from the stored ones."""
    same = np.ones(len(stored), bool)
    if SKETCH in found:
        expected = stored[SKETCH].astype("float32")
        gap = np.abs(found[SKETCH].astype("float32") - expected)
        # False for what is not a number.
        same &= (gap <= TOLERANCE + 1e-3 * np.abs(expected)).all(axis=1)
    if DIGEST in found:
        same &= found[DIGEST] == stored[DIGEST]
    return ~same
