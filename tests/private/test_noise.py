"""Numbers from seed, step and place: against unsigned NumPy, and as random ones."""

import numpy as np
import pytest
import tensorflow as tf

from keras_distill._backend import noise


def mixed(x):
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x21F0AAAD)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0xD35A2D97)
    return x ^ (x >> np.uint32(15))


def uniform(places, seed, step):
    places = np.asarray(places).astype("int64").astype("uint32")
    key = mixed(mixed(np.array([seed]).astype("uint32")) + np.uint32(step))
    return (mixed(mixed(places) ^ key) & np.uint32(0xFFFFFF)) / 2**24


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_equals_unsigned_numpy(jit_compile):
    places = np.arange(-50, 5000).reshape(2, -1)
    draw = noise.uniform
    if jit_compile is not None:
        draw = tf.function(draw, jit_compile=jit_compile)
    for seed, step in ((0, 0), (1, 3), (12345, 2**30)):
        found = draw(tf.constant(places), seed, tf.constant(step, "int64"))
        np.testing.assert_array_equal(found, uniform(places, seed, step))


def test_numbers_are_spread_and_do_not_follow_from_each_other():
    first = np.array([noise.uniform(range(4000), 0, step) for step in range(8)])
    other = np.array([noise.uniform(range(4000), 1, step) for step in range(8)])
    assert first.min() >= 0 and first.max() < 1
    counts = np.histogram(first, 16, (0, 1))[0]
    # A sixteenth of 32,000 is 2,000, with a deviation of 43.
    assert np.all(abs(counts - 2000) < 5 * 43)
    drawn = np.concatenate([first, other])
    neighbours = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in drawn]
    between = np.corrcoef(drawn) - np.eye(len(drawn))
    # Of 4,000 pairs the correlation has a deviation of 0.016.
    assert np.abs(neighbours).max() < 5 * 0.016
    assert np.abs(between).max() < 5 * 0.016
