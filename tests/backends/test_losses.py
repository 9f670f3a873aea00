"""The same tensors give the same losses and gradients on every backend."""

import functools

import numpy as np
import pytest

from tests.backends.other import run_module
from tests.losses.contract import ROWS


def run(backend, folder):
    result = folder / f"{backend}.npz"
    run_module(backend, "tests.backends.losses", str(result), timeout=300)
    return dict(np.load(result))


@pytest.fixture(scope="module")
def compute(tmp_path_factory):
    """Return a function from a backend to all losses and gradients on it."""
    folder = tmp_path_factory.mktemp("losses")
    return functools.cache(lambda backend: run(backend, folder))


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_losses_and_gradients_equal_those_on_tensorflow(backend, compute):
    found, expected = compute(backend), compute("tensorflow")
    assert set(found) == set(expected)
    assert {name.split("/")[0] for name in found} == {row.name for row in ROWS}
    for name, value in expected.items():
        assert found[name].dtype == value.dtype == "float32"
        # A mean of differences of logarithms that are a hundred times larger.
        lossy = "conditional_probability" in name and name.endswith("values")
        bound = 1e-4 if lossy else 1e-5
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=bound * np.abs(value).max(), err_msg=name
        )
