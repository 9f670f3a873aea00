"""Chunks of rows: each row is read, written and counted once, for any sizes."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill._backend.chunks import (
    Chunks,
    buffer,
    chunk_size,
    multiplies_in_place,
)
from tests.differentiation import compilers

SIZES = [(1, 4), (4, 4), (5, 4), (8, 4), (11, 4), (7, 1), (7, 100)]


def squares_and_sum(rows, size):
    """Return the rows' squares, how often each row was counted, and the rows' sum."""
    chunks = Chunks(ops.shape(rows)[0], size)

    def step(chunk, state):
        squares, counted, total = state
        part = chunk.take(rows)
        squares = chunk.put(squares, ops.square(part))
        counted = chunk.add(counted, chunk.once(ops.ones_like(part)))
        return squares, counted, total + ops.sum(chunk.once(part), axis=0)

    shape = ops.shape(rows)
    start = buffer(shape, "float32"), buffer(shape, "float32"), ops.zeros((3,))
    return chunks.walk(step, start)


@pytest.mark.parametrize("rows, size", SIZES)
@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
def test_every_row_once(rows, size, compiler):
    available = {"none": lambda function: function, **compilers()}
    if compiler not in available:
        pytest.skip(f"{keras.backend.backend()} has no such compiler")
    array = np.random.default_rng(0).normal(size=(rows, 3)).astype("float32")
    function = available[compiler](lambda x: squares_and_sum(x, size))
    found = [ops.convert_to_numpy(x) for x in function(ops.convert_to_tensor(array))]
    for x, expected in zip(
        found, (array**2, np.ones((rows, 3)), array.sum(0)), strict=True
    ):
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_a_number_of_rows_that_is_unknown_while_tracing(jit):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends compile for known shapes")
    import tensorflow as tf

    unknown = [tf.TensorSpec((None, 3))]
    function = tf.function(
        lambda x: squares_and_sum(x, chunk_size(tf.shape(x)[0], 4, 2)),
        input_signature=unknown,
        jit_compile=jit,
    )
    for rows in (1, 2, 9, 64):
        array = np.random.default_rng(0).normal(size=(rows, 3)).astype("float32")
        # Twice, to show that the buffers do not keep values between calls.
        for _ in range(2):
            squares, counted, total = function(array)
        np.testing.assert_allclose(squares, array**2, rtol=1e-6)
        np.testing.assert_array_equal(counted, np.ones((rows, 3)))
        np.testing.assert_allclose(total, array.sum(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["function", "function in it", "loop in it"])
@pytest.mark.parametrize("jit", [False, True])
def test_products_reuse_memory_in_tensorflows_graphs_without_xla(way, jit):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends have no such graphs")
    import tensorflow as tf

    found = []

    def note(x):
        found.append(multiplies_in_place())
        return x + 1.0

    ways = {
        "function": note,
        "function in it": tf.function(note),
        "loop in it": lambda x: tf.while_loop(lambda x: x < 1.0, note, [x])[0],
    }
    tf.function(ways[way], jit_compile=jit)(tf.zeros(()))
    assert found == [not jit]


def test_products_reuse_no_memory_outside_of_graphs():
    assert multiplies_in_place() is False


@pytest.mark.parametrize(
    "rows, expected", [(1, 32), (1024, 32), (1025, 33), (4096, 128)]
)
def test_chunk_size(rows, expected):
    assert chunk_size(rows, 32, 32) == expected
