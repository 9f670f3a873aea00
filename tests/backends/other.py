"""A process of another backend than the tests'."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run_module(backend, *arguments, timeout=1200):
    """Run `python -m` on a backend, or skip where it is not installed."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=ROOT,
        timeout=timeout,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def assert_pass(backend, *arguments):
    """Run tests on a backend: at least one passes, and none fails."""
    output = run_module(backend, "pytest", "-n", "0", *arguments)
    assert " passed" in output.splitlines()[-1]
