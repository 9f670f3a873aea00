"""Each kind of task with each distiller, and the first batch, on the other backends."""

import pytest

from tests.backends.other import assert_pass


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("file", ["test_tasks_matrix", "test_first_look"])
def test_tasks(file, backend):
    # With those that are long.
    assert_pass(backend, f"tests/distillers/{file}.py", "-m", "")
