"""Tests of teachers, run on the backends other than TensorFlow."""

import pytest

from tests.backends.other import assert_pass


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_as_far_as_the_deepest_tap(backend):
    assert_pass(backend, "tests/taps/test_deepest_tap.py")


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_frozen_nets(backend):
    assert_pass(backend, "tests/teachers/test_freezing.py")


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_copies_of_peers(backend):
    assert_pass(backend, "tests/distillers/test_mutual_distiller.py", "-k", "renewed")


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_given_and_function_teachers(backend):
    names = "given_teacher", "function_teacher", "classes", "ensembles", "untouched"
    assert_pass(backend, *(f"tests/teachers/test_{name}.py" for name in names))


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_logits_in_place_of_probabilities(backend):
    assert_pass(backend, "tests/teachers/test_as_logits.py")
