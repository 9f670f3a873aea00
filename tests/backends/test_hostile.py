"""Odd inputs, numbers and arrays on the other backends: a right number or a named error."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILES = {
    "odd inputs": ["distillers/test_odd_inputs.py"],
    "arrays": ["training/test_array_checks.py", "training/test_weights_stay_finite.py"],
    "temperatures": ["losses/test_high_temperatures.py"],
}


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_hostile(files, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q"]
    done = subprocess.run(
        [*command, *(f"tests/{file}" for file in files)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=ROOT,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:]
