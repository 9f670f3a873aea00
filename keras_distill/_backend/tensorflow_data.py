"""What a `tf.data.Dataset` is made of, and how often Keras iterates over one."""

import keras
import numpy as np


def passes_per_epoch(batches: int) -> int:
    """Return how many iterators of a `tf.data.Dataset` Keras creates in each epoch.

    Each draws a new order where the data are shuffled. Stands in for a public way to
    learn the number of passes of `keras.src.trainers.epoch_iterator.EpochIterator`, which
    creates one for the next epoch and another when that begins; no public issue asks for
    it. On JAX and torch the first of them is never read, and draws nothing.

    Args:
        batches: of the data; negative if unknown.
    """
    return 2 if batches > 0 and keras.backend.backend() == "tensorflow" else 1


def reads_generator(dataset) -> bool:
    """Whether a `tf.data.Dataset` reads a Python generator, which may end for good.

    Stands in for a public way to walk the datasets that one is made of, which is
    `tf.data.Dataset._inputs`, and to see what `flat_map` calls; no public issue asks
    for either.
    """
    rest = [dataset]
    while rest:
        dataset = rest.pop()
        function = getattr(getattr(dataset, "_map_func", None), "function", None)
        if function is not None and _creates_generator(function.graph):
            return True
        rest += dataset._inputs() if hasattr(dataset, "_inputs") else []
    return False


def _creates_generator(graph) -> bool:
    return any(op.type == "GeneratorDataset" for op in graph.get_operations())


def with_own_tensors(dataset):
    """Return a dataset whose tensors are copies, for one that reads a Python generator.

    A tensor of an array that a generator yields can be the array's own memory, and
    TensorFlow writes the result of an operation into an input that nothing else reads:
    the next epoch reads other data. Stands in for an option of
    `tf.data.Dataset.from_generator` to copy; no public issue asks for it.
    """
    import tensorflow as tf

    def copy(leaf):
        is_plain = isinstance(leaf, tf.Tensor) and leaf.dtype != tf.string
        return tf.raw_ops.DeepCopy(x=leaf) if is_plain else leaf

    def copied(*batch):
        batch = batch if isinstance(dataset.element_spec, tuple) else batch[0]
        return keras.tree.map_structure(copy, batch)

    return dataset.map(copied)


def copied_arrays(batch):
    """Return a batch of a Python generator whose arrays are copies, on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return batch
    return keras.tree.map_structure(
        lambda x: x.copy() if isinstance(x, np.ndarray) else x, batch
    )
