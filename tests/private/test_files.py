"""A file that a disk or a crash has damaged is never read as what was written."""

import os

import numpy as np
import pytest

from keras_distill._backend import files

ARRAYS = {
    "position": np.array([1, 3]),
    "run 0 kernel": np.linspace(-1.0, 1.0, 12, dtype="float32").reshape(3, 4),
    "run 1 seed": np.array([7, 8], "uint32"),
}


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "state.npz")
    files.write_arrays(path, ARRAYS)
    return path


def is_as_written(path):
    found = files.read_arrays(path)
    assert set(found) == set(ARRAYS)
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
    return True


def test_a_flipped_bit_is_found_or_changes_nothing(path):
    with open(path, "rb") as file:
        whole = file.read()
    found = 0
    for bit in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with open(path, "wb") as file:
            file.write(damaged)
        try:
            # Times and the like are no part of the arrays.
            assert is_as_written(path)
        except files.Damaged:
            found += 1
    assert 3 * found > 8 * sum(value.nbytes for value in ARRAYS.values())


def test_a_file_cut_short_is_found(path):
    assert is_as_written(path)
    for size in reversed(range(os.path.getsize(path))):
        os.truncate(path, size)
        with pytest.raises(files.Damaged):
            files.read_arrays(path)
