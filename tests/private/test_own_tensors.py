"""Arrays of a generator, which TensorFlow may write into, are copied."""

import keras
import numpy as np
import pytest

from keras_distill._backend.tensorflow_data import (
    copied_arrays,
    reads_generator,
    with_own_tensors,
)
from keras_distill.training.data_checks import data_and_batch, with_own_arrays

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's data"
)


def aligned(count):
    """Return an array at an address that TensorFlow takes as its own memory."""
    memory = np.zeros(4 * count + 64, "uint8")
    start = -memory.ctypes.data % 64
    return memory[start : start + 4 * count].view("float32").reshape(-1, 16)


def dataset(arrays):
    import tensorflow as tf

    spec = tuple(tf.TensorSpec((None, 16), "float32") for _ in arrays)
    return tf.data.Dataset.from_generator(lambda: iter([arrays]), output_signature=spec)


def shares(tensor, array):
    return np.shares_memory(np.asarray(memoryview(tensor)), array)


def test_tensors_are_copies():
    arrays = aligned(64), aligned(64)
    (found,) = dataset(arrays)
    if not all(map(shares, found, arrays)):
        pytest.skip("TensorFlow copies the arrays itself: with_own_tensors can go")
    assert reads_generator(dataset(arrays))
    (found,) = with_own_tensors(dataset(arrays))
    assert not any(map(shares, found, arrays))
    np.testing.assert_array_equal(found[0], arrays[0])


def test_data_to_train_and_to_evaluate_on_are_copies():
    arrays = aligned(64), aligned(64)
    for data in (
        data_and_batch(dataset(arrays), None)[0],
        with_own_arrays(dataset(arrays)),
    ):
        (found,) = data
        assert not any(map(shares, found, arrays))
    generator, _ = data_and_batch(iter([arrays, arrays]), None)
    for found in (*generator, *with_own_arrays(iter([arrays]))):
        assert not any(
            np.shares_memory(x, y) for x, y in zip(found, arrays, strict=True)
        )


def test_other_data_are_left_alone():
    import tensorflow as tf

    x = np.ones((4, 2), "float32")
    data = tf.data.Dataset.from_tensor_slices(x).batch(2)
    assert with_own_arrays(data) is data and with_own_arrays(x) is x
    assert copied_arrays((x, None))[1] is None
    strings = tf.data.Dataset.from_generator(
        lambda: iter([{"t": np.array(["a"])}]),
        output_signature={"t": tf.TensorSpec((None,), "string")},
    )
    (found,) = with_own_arrays(strings)
    assert found["t"].numpy()[0] == b"a"
