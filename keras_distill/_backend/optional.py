"""Packages that only some functions need, and the extras that install them."""

import importlib
import importlib.util
import os
from typing import Any

# The extra of `pip install "keras-distill[extra]"` that installs a package.
EXTRAS = {
    "jax": "jax",
    "matplotlib": "plot",
    "scipy": "plot",
    "sklearn": "data",
    "tensorflow": "tensorflow",
    "tensorflow_datasets": "data",
    "torch": "torch",
}
BACKENDS = "tensorflow", "jax", "torch"


def require(module: str, user: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: the module, such as `"scipy.cluster.hierarchy"`.
        user: the function that needs it, for the error.

    Raises:
        ImportError: the package is not installed.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(
            f"{user} needs {package}, which is not installed: "
            f"{_install(EXTRAS[package])}.",
            name=package,
        ) from None


def import_keras() -> None:
    """Import Keras, whose first import loads its backend.

    Raises:
        ImportError: the backend is not installed.
    """
    try:
        importlib.import_module("keras")
    except ModuleNotFoundError as error:
        if error.name not in BACKENDS:
            raise
        raise ImportError(_no_backend(error.name), name=error.name) from None


def _no_backend(missing: str) -> str:
    chosen = "which KERAS_BACKEND names,"
    if "KERAS_BACKEND" not in os.environ:
        chosen = "the backend that Keras is set to,"
    message = f"{missing}, {chosen} is not installed: {_install(EXTRAS[missing])}"
    others = [x for x in BACKENDS if x != missing]
    if installed := [x for x in others if _is_installed(x)]:
        return f"{message}, or set KERAS_BACKEND={installed[0]}, which is installed."
    extras = " or ".join(_extra(x) for x in others)
    return f"{message}; or install {extras} and set KERAS_BACKEND to its backend."


def _install(extra: str) -> str:
    return f'pip install "{_extra(extra)}"'


def _extra(name: str) -> str:
    return f"keras-distill[{name}]"


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    # A folder of this name, without code, has no origin.
    return spec is not None and spec.origin is not None
