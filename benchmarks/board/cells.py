"""Cells of the board: one training each, in one JSON file."""

import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import subprocess

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Cell:
    """A row, a pair and a seed.

    Args:
        method: name of the row, or `"teacher"`.
        pair: name of the pair.
        seed: of the student's weights, the order of the images and the views.
    """

    method: str
    pair: str
    seed: int

    def __str__(self) -> str:
        """Return the name of the cell's file."""
        method = self.method.replace(" ", "-").replace("+", "-and-")
        return f"{self.pair}.{method}.{self.seed}"

    def file(self, folder: pathlib.Path) -> pathlib.Path:
        """Return the path of the cell's file."""
        return folder / f"{self}.json"

    def is_done(self, folder: pathlib.Path) -> bool:
        """Whether the cell's file is there."""
        return self.file(folder).exists()

    def read(self, folder: pathlib.Path) -> dict:
        """Return what the cell's file holds."""
        return json.loads(self.file(folder).read_text("utf-8"))

    def write(self, folder: pathlib.Path, **found) -> None:
        """Write the cell's file: at once, so that it is whole if it is there."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {**dataclasses.asdict(self), **found, **_where()}
        beside = folder / f".{self}.{os.getpid()}"
        beside.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        beside.replace(self.file(folder))


def weights_hash(model: keras.Model) -> str:
    """Return a hash of a model's weights."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)))
    return digest.hexdigest()


def _where() -> dict:
    return {
        "revision": _revision(),
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "machine": _device(),
    }


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    here = pathlib.Path(__file__).parent
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _device() -> str:
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    return platform.machine()
