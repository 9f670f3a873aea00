"""Tests of teachers, run on the backends other than TensorFlow."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(backend, *arguments):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=ROOT,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout.splitlines()[-1]


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_as_far_as_the_deepest_tap(backend):
    run(backend, "tests/taps/test_deepest_tap.py")


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_frozen_nets(backend):
    run(backend, "tests/teachers/test_freezing.py")


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_copies_of_peers(backend):
    run(backend, "tests/distillers/test_mutual_distiller.py", "-k", "renewed")


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_given_and_function_teachers(backend):
    names = "given_teacher", "function_teacher", "classes", "ensembles", "untouched"
    run(backend, *(f"tests/teachers/test_{name}.py" for name in names))


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_logits_in_place_of_probabilities(backend):
    run(backend, "tests/teachers/test_as_logits.py")
