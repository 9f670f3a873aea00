"""The same weights and batches give the same training on every backend."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("train.py")


def train(backend, folder):
    result = folder / f"{backend}.npz"
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["JAX_ENABLE_X64"] = "1"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / "start.npz"), str(result)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(result))


@pytest.fixture(scope="module")
def on_tensorflow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    return folder, train("tensorflow", folder)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_two_steps_equal_those_on_tensorflow(backend, on_tensorflow):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    folder, expected = on_tensorflow
    found = train(backend, folder)
    assert not found.pop("imported_tensorflow")
    assert not found["teacher_moved"]
    # Each backend draws other random numbers here.
    whole, start = found.pop("masked")
    assert whole == pytest.approx(start, rel=1e-6) and start > 0.01
    chunked, on_logits = found["vocabulary"]
    assert chunked == pytest.approx(on_logits, rel=1e-6)
    assert chunked[1] < chunked[0] - 0.01
    apart = {"imported_tensorflow", "masked"}
    expected = {name: x for name, x in expected.items() if name not in apart}
    assert set(found) == set(expected) and {"train_hint", "test_loss"} <= set(found)
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-5, atol=1e-5, err_msg=name
        )
