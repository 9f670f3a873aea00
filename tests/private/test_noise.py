"""Stateless noise: against unsigned NumPy, and its statistics."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill._backend import noise
from tests.differentiation import compilers


def hash_(x):
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x21F0AAAD)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0xD35A2D97)
    return x ^ (x >> np.uint32(15))


def uniform(indices, seed, step):
    indices = np.asarray(indices).astype("int64").astype("uint32")
    key = hash_(hash_(np.array([seed]).astype("uint32")) + np.uint32(step))
    return (hash_(hash_(indices) ^ key) & np.uint32(0xFFFFFF)) / 2**24


@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
def test_equals_unsigned_numpy(compiler):
    available = {"none": lambda function: function, **compilers()}
    if compiler not in available:
        pytest.skip(f"{keras.backend.backend()} has no such compiler")
    indices, draw = (
        np.arange(-50, 5000).reshape(2, -1),
        available[compiler](noise.uniform),
    )
    for seed, step in ((0, 0), (1, 3), (12345, 2**30)):
        found = draw(
            ops.convert_to_tensor(indices), seed, ops.convert_to_tensor(step, "int64")
        )
        expected = uniform(indices, seed, step)
        np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)


def test_numbers_are_uniform_and_uncorrelated():
    first = np.array([noise.uniform(range(4000), 0, step) for step in range(8)])
    other = np.array([noise.uniform(range(4000), 1, step) for step in range(8)])
    assert first.min() >= 0 and first.max() < 1
    counts = np.histogram(first, 16, (0, 1))[0]
    # Each bin expects 2,000 of 32,000 numbers, with a standard deviation of 43.
    assert np.all(abs(counts - 2000) < 5 * 43)
    drawn = np.concatenate([first, other])
    neighbors = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in drawn]
    between = np.corrcoef(drawn) - np.eye(len(drawn))
    # The correlation of 4,000 pairs has a standard deviation of 0.016.
    assert np.abs(neighbors).max() < 5 * 0.016
    assert np.abs(between).max() < 5 * 0.016
