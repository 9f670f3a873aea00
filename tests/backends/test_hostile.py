"""Odd inputs, numbers and arrays on the other backends: a right number or a named error."""

import pytest

from tests.backends.other import assert_pass

FILES = {
    "odd inputs": ["distillers/test_odd_inputs.py"],
    "arrays": ["training/test_array_checks.py", "training/test_weights_stay_finite.py"],
    "temperatures": ["losses/test_high_temperatures.py"],
}


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_hostile(files, backend):
    assert_pass(backend, *(f"tests/{file}" for file in files))
