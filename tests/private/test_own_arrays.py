"""Arrays that TensorFlow may write into are copied for replicas."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill._backend.own_arrays import with_own_arrays, with_own_tensors

ROWS = slice(0, 16), slice(16, 29)


def aligned(*shape):
    """Return ones at an address that TensorFlow takes as its own memory."""
    memory = np.zeros(4 * int(np.prod(shape)) + 64, "uint8")
    start = -memory.ctypes.data % 64
    array = memory[start : start + 4 * int(np.prod(shape))].view("float32")
    array[:] = 1.0
    return array.reshape(shape)


class Parts(keras.utils.PyDataset):
    """Views of arrays."""

    def __init__(self, arrays):
        super().__init__()
        self.arrays, self.begun = arrays, 0

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return tuple(x[ROWS[index]] for x in self.arrays)

    def on_epoch_begin(self):
        self.begun += 1


def generated(arrays):
    for rows in ROWS:
        yield tuple(x[rows] for x in arrays)


def dataset(arrays):
    import tensorflow as tf

    specs = tuple(tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in arrays)
    return tf.data.Dataset.from_generator(
        lambda: generated(arrays), output_signature=specs
    )


KINDS = {"parts": Parts, "generator": generated, "dataset": dataset}


def scaling():
    """Return a net whose first operation could write into its input."""
    inputs = keras.Input((16,))
    scaled = keras.layers.Rescaling(3.0)(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(scaled))


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_write_into_no_array(kind, two_replicas):
    arrays = aligned(32, 16), np.zeros(32, int), aligned(32)
    with two_replicas.scope():
        distiller = kd.Distiller(scaling(), scaling())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile("sgd", loss)
        for run in (distiller.fit, distiller.evaluate):
            run(KINDS[kind](arrays), verbose=0)
            assert (arrays[0] == 1).all() and (arrays[2] == 1).all(), run.__name__
        distiller.predict(KINDS[kind](arrays[:1]), verbose=0)
        assert (arrays[0] == 1).all()


def test_one_device_reads_data_as_they_are():
    model, parts = scaling(), Parts([aligned(32, 16)])
    assert with_own_arrays(model, parts) is parts


def test_a_dataset_of_parts_hears_of_epochs(two_replicas):
    parts = Parts([aligned(32, 16)])
    with two_replicas.scope():
        copied = with_own_arrays(scaling(), parts)
    copied.on_epoch_begin()
    assert parts.begun == 1 and copied.num_batches == len(parts)
    assert not np.shares_memory(copied[0][0], parts[0][0])
    np.testing.assert_array_equal(copied[1][0], parts[1][0])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's datasets"
)
def test_strings_and_single_tensors():
    import tensorflow as tf

    for array, spec in ((np.array(["a"]), "string"), (aligned(4), "float32")):
        data = tf.data.Dataset.from_generator(
            lambda array=array: iter([array]),
            output_signature=tf.TensorSpec((None,), spec),
        )
        (found,) = with_own_tensors(data)
        np.testing.assert_array_equal(found.numpy().astype("U"), array.astype("U"))
