"""On JAX and torch distillers take what tasks of keras_hub take, as on TensorFlow."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from tests import hub_tasks

SCRIPT = pathlib.Path(__file__).with_name("hub.py")


# Faster compilation of programs that run once.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_tasks(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    root = str(SCRIPT.parents[2])
    settings = {"KERAS_BACKEND": backend, "PYTHONPATH": root, "XLA_FLAGS": FLAGS}
    tasks = list(hub_tasks.TASKS)
    if backend == "jax":
        # It compiles for most of the time: a task of each kind.
        kinds = hub_tasks.IMAGE, hub_tasks.TEXT, hub_tasks.CAUSAL, hub_tasks.SEQ2SEQ
        tasks = [next(iter(kind)) for kind in kinds]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *tasks],
        capture_output=True,
        text=True,
        env={**os.environ, **settings},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("ok ") == len(tasks)
