"""On JAX and torch distillers take what tasks of keras_hub take, as on TensorFlow."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("hub.py")


TASKS = {
    "jax": ["resnet", "vit"],
    "torch": ["resnet", "vit", "mobilenet", "bert", "distil_bert"],
}


@pytest.mark.long
@pytest.mark.parametrize("backend", TASKS)
def test_tasks(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    root = str(SCRIPT.parents[2])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *TASKS[backend]],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("ok ") == len(TASKS[backend])
