"""Copies of arrays that TensorFlow would write into."""

from collections.abc import Callable

import keras
import numpy as np

from keras_distill._backend.keras_trainer import strategy_of
from keras_distill._backend.tensorflow_data import reads_generator


class MappedDataset(keras.utils.PyDataset):
    """The batches of another dataset, each passed through a function.

    Args:
        data: the dataset.
        function: from a batch to a batch; it need not be one that pickles.
    """

    def __init__(self, data: keras.utils.PyDataset, function: Callable):
        super().__init__(
            workers=data.workers,
            use_multiprocessing=False,
            max_queue_size=data.max_queue_size,
        )
        self.data, self.function = data, function

    @property
    def num_batches(self):
        """The number of batches of the dataset, None if unknown."""
        return self.data.num_batches

    def __getitem__(self, index):
        return self.function(self.data[index])

    def on_epoch_begin(self):
        """Call the dataset's method of this name."""
        self.data.on_epoch_begin()

    def on_epoch_end(self):
        """Call the dataset's method of this name."""
        self.data.on_epoch_end()


def with_own_arrays(model: keras.Model, x):
    """Return data whose arrays are copies, where replicas would write into others.

    A tensor can be the memory of an array that a generator or a `PyDataset` returned.
    Split into parts for replicas, it is an input that nothing else reads, into which
    TensorFlow writes the result of an operation: the next epoch reads other data. Stands
    in for an option of `tf.data.Dataset.from_generator` to copy; no public issue asks
    for it.

    Args:
        model: under whose strategy the data are read.
        x: data of any kind.
    """
    strategy = strategy_of(model)
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return x
    if isinstance(x, keras.utils.PyDataset):
        return MappedDataset(x, copied_arrays)
    if hasattr(x, "element_spec"):
        # A distributed dataset is divided already, and has no `map`.
        is_whole = hasattr(x, "map") and reads_generator(x)
        return with_own_tensors(x) if is_whole else x
    return (copied_arrays(batch) for batch in x) if hasattr(x, "__next__") else x


def with_own_tensors(dataset):
    """Return a `tf.data.Dataset` whose tensors are copies."""
    import tensorflow as tf

    def copy(leaf):
        is_plain = isinstance(leaf, tf.Tensor) and leaf.dtype != tf.string
        return tf.raw_ops.DeepCopy(x=leaf) if is_plain else leaf

    def copied(*batch):
        batch = batch if isinstance(dataset.element_spec, tuple) else batch[0]
        return keras.tree.map_structure(copy, batch)

    return dataset.map(copied)


def copied_arrays(batch):
    """Return a batch whose arrays are copies."""
    return keras.tree.map_structure(
        lambda x: x.copy() if isinstance(x, np.ndarray) else x, batch
    )
