"""Of which kind the values of an array are, whoever made it."""

import numpy as np


def kind_of(leaf) -> str | None:
    """Return `"number"`, `"string"`, `"complex"`, or None for any other kind."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not hasattr(dtype, "kind"):
        name = "string" if "string" in str(dtype) else "number"
        return "complex" if "complex" in str(dtype) else name
    if dtype.kind in "US":
        return "string"
    if dtype.kind == "O":
        first = np.asarray(leaf).reshape(-1)
        return "string" if all(isinstance(x, (str, bytes)) for x in first) else None
    if dtype.kind == "c":
        return "complex"
    if dtype.kind in "biuf":
        return "number"
    # Those of ml_dtypes, such as bfloat16.
    return "number" if "bfloat16" in dtype.name or "float8" in dtype.name else None
