"""2,000 steps on each backend: memory does not grow, the step is traced once."""

import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("soak.py")


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        *itertools.product(["Distiller"], ["tensorflow", "jax", "torch"]),
        *itertools.product(["MeanTeacher", "codistillation"], ["tensorflow"]),
    ],
)
def test_two_thousand_steps(kind, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            # Networks this small are slower on several threads.
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(SCRIPT.parents[2]),
        },
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # One copy of a batch or a gradient leaked per step would exceed this.
    assert found["growth"] < 4 * 2**20
    if backend == "torch":
        assert found["runs"] == 2000
    else:
        assert found["runs"] == found["first"] <= 2
