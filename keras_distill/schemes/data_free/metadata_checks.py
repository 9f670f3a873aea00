"""Checks of metadata from a file: settings, and shapes and values of the arrays."""

import json

import keras
import numpy as np

KINDS = ("top", "all", "spectral", "pairs")
_TYPES = {"kind": str, "layers": list, "masks": int, "dropout": float, "seed": int}
_TYPES |= {"input_shape": list, "teacher": str}


def read_settings(array: np.ndarray) -> dict:
    """Return the settings in an array of bytes.

    Raises:
        ValueError: they are not those of metadata.
    """
    try:
        settings = json.loads(array.tobytes())
    except RecursionError as error:
        raise ValueError("its settings are not valid JSON") from error
    if not isinstance(settings, dict):
        raise ValueError("its settings are no dict")
    for name, kind in _TYPES.items():
        if type(settings.get(name)) is not kind:
            raise ValueError(f"its setting '{name}' is {settings.get(name)!r}")
    # Files of earlier versions lack it.
    if not isinstance(settings.get("connections", ""), str):
        raise ValueError(f"its setting 'connections' is {settings['connections']!r}")
    if settings["kind"] not in KINDS:
        raise ValueError(f"it is of kind {settings['kind']!r}")
    if settings["masks"] < 0:
        raise ValueError(f"its number of masks is {settings['masks']}")
    layers, shape = settings["layers"], settings["input_shape"]
    if not layers or not all(isinstance(layer, str) for layer in layers):
        raise ValueError(f"its layers are {layers}")
    if not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"its input_shape is {shape}")
    return settings


def check_arrays(settings: dict, arrays: dict[str, np.ndarray]) -> None:
    """Check that the arrays are those of the settings, in shape, dtype and range.

    Raises:
        ValueError: one is not.
    """
    is_spectral = settings["kind"] in ("spectral", "pairs")
    expected = (_spectra if is_spectral else _statistics)(settings, arrays)
    if set(expected) != set(arrays):
        names = sorted(set(expected) ^ set(arrays))
        raise ValueError(f"its layers and arrays differ in {', '.join(names[:4])}")
    for name, (kind, shape) in expected.items():
        array = arrays[name]
        if array.dtype.kind not in kind or array.shape != shape:
            raise ValueError(f"'{name}' is {array.dtype} {array.shape}, not {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"'{name}' is not finite")
        if kind != "f" and array.size and array.min() < 0:
            raise ValueError(f"'{name}' has negative numbers")


def check_input_shape(found: list[int], teacher: keras.Model) -> None:
    """Check that recorded inputs have the shape that a teacher takes.

    Raises:
        ValueError: they have another.
    """
    expected = list(teacher.inputs[0].shape[1:])
    fits = [size in (None, other) for size, other in zip(expected, found, strict=False)]
    if len(expected) != len(found) or not all(fits):
        raise ValueError(
            f"The metadata are of inputs {found}, but '{teacher.name}' takes {expected}. "
            "Record them again."
        )


def _statistics(settings: dict, arrays: dict) -> dict:
    """Return kind and shape of each array, by the sizes that others have."""
    expected = {}
    for view in range(max(1, settings["masks"])):
        (classes,) = _shape(arrays, f"{view}/shares", 1)
        expected[f"{view}/shares"] = "iu", (classes,)
        if not arrays[f"{view}/shares"].any():
            raise ValueError(f"'{view}/shares' has no samples")
        for layer in settings["layers"]:
            name = f"{view}/{layer}"
            _, width, rank = _shape(arrays, f"{name}/factor", 3)
            expected[f"{name}/mean"] = "f", (classes, width)
            expected[f"{name}/factor"] = "f", (classes, width, rank)
            expected[f"{name}/low"] = "f", ()
    return expected


def _spectra(settings: dict, arrays: dict) -> dict:
    """Return kind and shape of each array, by the sizes that others have."""
    pairs = settings["kind"] == "pairs"
    count, expected = _shape(arrays, "0/places", 2)[0], {}
    for group in range(len(settings["layers"]) - pairs):
        sizes, places = (arrays.get(f"{group}/{n}") for n in ("sizes", "places"))
        kept = _shape(arrays, f"{group}/places", 2)[1]
        _shape(arrays, f"{group}/sizes", 1)
        width = int(sizes.sum())
        expected[f"{group}/basis"] = "f", (width, width)
        expected[f"{group}/places"] = "iu", (count, kept)
        expected[f"{group}/values"] = "f", (count, kept)
        expected[f"{group}/sizes"] = "iu", (1 + pairs,)
        if places.size and places.max() >= width:
            raise ValueError(f"'{group}/places' has a neuron above {width - 1}")
        counts = arrays.get(f"{group}/counts")
        # Files of earlier versions have neither: all coefficients are kept.
        if counts is not None or f"{group}/lows" in arrays:
            expected[f"{group}/counts"] = "iu", (count,)
            expected[f"{group}/lows"] = "f", (1 + pairs,)
        if counts is not None and counts.size and counts.max() > kept:
            raise ValueError(f"'{group}/counts' has a number above {kept}")
    return expected


def _shape(arrays: dict, name: str, rank: int) -> tuple:
    shape = np.shape(arrays[name]) if name in arrays else None
    if shape is None or len(shape) != rank:
        raise ValueError(f"'{name}' has the shape {shape}")
    return shape
