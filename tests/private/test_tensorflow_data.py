"""What `_backend/tensorflow_data.py` sees of a `tf.data.Dataset`."""

import tensorflow as tf

from keras_distill._backend.tensorflow_data import reads_generator

SPEC = tf.TensorSpec((), tf.int32)


def test_a_generator_is_found_below_other_datasets():
    made = tf.data.Dataset.from_generator(lambda: range(3), output_signature=SPEC)
    plain = tf.data.Dataset.range(3)
    for data in (
        made,
        made.map(lambda x: x + 1).batch(2).prefetch(1),
        tf.data.Dataset.zip(plain, made),
    ):
        assert reads_generator(data)


def test_other_datasets_read_none():
    plain = tf.data.Dataset.range(3)
    for data in (plain.shuffle(3).repeat().batch(2), plain.flat_map(lambda _: plain)):
        assert not reads_generator(data)
    assert not reads_generator([1, 2])
