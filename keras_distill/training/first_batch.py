"""The first batch of data, which is looked at before the training."""

import random

import keras
import numpy as np

from keras_distill._backend.tensorflow_data import reads_generator


def data_and_batch(x, y):
    """Return the data, and a batch to check: all of it if it is arrays, else the first.

    Returns:
        The data to train on, where a generator, or a `tf.data.Dataset` of one, is
        wrapped so that its first batch is not lost, and the batch as `(x, y, ...)`, or
        None if none can be read. Of data of inputs alone, such as dicts, it is `(x,)`.

    Raises:
        ValueError: the data are empty.
    """
    x, batch = _data_and_batch(x, y)
    return x, batch if batch is None or isinstance(batch, (tuple, list)) else (batch,)


def _data_and_batch(x, y):
    if isinstance(x, keras.utils.PyDataset):
        count = x.num_batches
        if count is not None:
            _check_not_empty(count)
        return x, x[0]
    if hasattr(x, "element_spec"):
        if hasattr(x, "take") and reads_generator(x):
            return _reread(x)
        return x, _first_of(x) if hasattr(x, "take") else None
    if hasattr(x, "__next__"):
        batch = _first_of(x)
        return _with_first(batch, x), batch
    if _is_loader(x):
        return x, _first_of_loader(x)
    arrays = [leaf for leaf in keras.tree.flatten(x) if hasattr(leaf, "shape")]
    if arrays:
        _check_not_empty(arrays[0].shape[0])
        return x, (x, y)
    return x, None


def batch_again(x):
    """Return the first batch of data that can be read again; None of all others."""
    if isinstance(x, keras.utils.PyDataset):
        return x[0] if x.num_batches is None or x.num_batches else None
    if hasattr(x, "element_spec"):
        is_whole = hasattr(x, "take") and not reads_generator(x)
        return next(iter(x), None) if is_whole else None
    return _first_of_loader(x) if _is_loader(x) else None


def _is_loader(x) -> bool:
    return hasattr(x, "batch_sampler") and hasattr(x, "collate_fn")


def _first_of_loader(loader):
    """Return a batch of a torch `DataLoader`; None of an `IterableDataset`.

    All generators are afterwards in the state that they were in, and no worker starts.
    """
    import torch

    if isinstance(loader.dataset, torch.utils.data.IterableDataset):
        return None
    states, own = (random.getstate(), np.random.get_state()), loader.generator
    of_own = own.get_state() if own is not None else None
    with torch.random.fork_rng(devices=[]):
        batch = _drawn(loader)
    random.setstate(states[0])
    np.random.set_state(states[1])
    if own is not None:
        own.set_state(of_own)
    return tuple(batch) if isinstance(batch, list) else batch


def _drawn(loader):
    if loader.batch_sampler is None:
        index = next(iter(loader.sampler), None)
        batch = None if index is None else loader.collate_fn(loader.dataset[index])
    else:
        indices = next(iter(loader.batch_sampler), None)
        rows = [loader.dataset[i] for i in indices or ()]
        batch = loader.collate_fn(rows) if rows else None
    _check_not_empty(0 if batch is None else 1)
    return batch


def _reread(dataset) -> tuple:
    """Return a dataset with its first batch, which a generator may not yield again."""
    import tensorflow as tf

    opened = iter(dataset)
    first = next(opened, None)
    _check_not_empty(0 if first is None else 1)
    begun = [_with_first(first, opened)]

    def batches():
        yield from begun.pop() if begun else dataset

    whole = tf.data.Dataset.from_generator(
        batches, output_signature=dataset.element_spec
    )
    count = int(dataset.cardinality())
    if count >= 0:
        whole = whole.apply(tf.data.experimental.assert_cardinality(count))
    return whole, first


def _with_first(first, rest):
    yield first
    yield from rest


def _first_of(batches):
    batch = next(iter(batches), None)
    _check_not_empty(0 if batch is None else 1)
    return batch


def _check_not_empty(count: int) -> None:
    if not count:
        raise ValueError(
            "The training data are empty: expected at least one batch, got none. Check "
            "the filter, the split or the path that they come from."
        )


def check_rereadable(x) -> None:
    """Check that data can be read by several trainings; a generator cannot."""
    if hasattr(x, "__next__"):
        raise ValueError(
            "Several trainings read the data one after another, and a generator ends "
            "with the first. Pass arrays, a tf.data.Dataset or a keras.utils.PyDataset."
        )


def rows_of(batch, count: int):
    """Return as many rows of a batch, drawn from all of it, in their order.

    Args:
        batch: a structure of arrays or tensors, of one number of rows, and None.
        count: of rows.

    Returns:
        The structure of tensors, all rows if there are no more; None if a part is of
        another kind, such as sparse.
    """
    leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
    if not leaves or not all(hasattr(x, "__array__") for x in leaves):
        return None
    rows = leaves[0].shape[0]
    drawn = None
    if rows > count:
        drawn = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
    return keras.tree.map_structure(lambda x: _rows_of(x, drawn), batch)


def _rows_of(leaf, drawn):
    if leaf is None:
        return None
    if drawn is not None:
        leaf = leaf.iloc[drawn] if hasattr(leaf, "iloc") else _take(leaf, drawn)
    array = leaf if keras.ops.is_tensor(leaf) else np.asarray(leaf)
    if not keras.ops.is_tensor(array) and array.dtype.kind not in "fiub":
        return array
    if not keras.ops.is_tensor(array) and array.dtype.kind == "f":
        array = array.astype(keras.config.floatx())
    return keras.ops.convert_to_tensor(array)


def _take(leaf, drawn):
    if keras.ops.is_tensor(leaf):
        return keras.ops.take(leaf, drawn, axis=0)
    return leaf[drawn] if not hasattr(leaf, "numpy") else leaf.numpy()[drawn]
