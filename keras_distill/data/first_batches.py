"""The first batches of data of any kind."""

import itertools

import keras
import numpy as np

from keras_distill.data.pipeline import is_batches


def first_batches(data, count: int, batch_size: int = 32) -> list[tuple]:
    """Return the first batches of data as tuples `(x, y, sample_weight)`.

    Args:
        data: a `tf.data.Dataset`, `keras.utils.PyDataset`, torch `DataLoader`, generator
            or list of batches; or a tuple of arrays `(x, y)` or `(x, y, sample_weight)`,
            or arrays alone, which are taken in batches.
        count: of batches, at most.
        batch_size: of arrays. Default 32.

    Raises:
        ValueError: the data are empty.
    """
    if isinstance(data, keras.utils.PyDataset):
        length = data.num_batches
        found = [
            data[i] for i in range(count if length is None else min(count, length))
        ]
    elif is_batches(data) or _is_iterable_of_batches(data):
        found = list(itertools.islice(data, count))
    else:
        found = _of_arrays(data, count, batch_size)
    if not found:
        raise ValueError("The data are empty. Pass at least one batch.")
    return [keras.utils.unpack_x_y_sample_weight(batch) for batch in found]


def _is_iterable_of_batches(data) -> bool:
    is_structure = isinstance(data, (tuple, dict)) or hasattr(data, "shape")
    return not is_structure and hasattr(data, "__iter__")


def _of_arrays(data, count: int, batch_size: int) -> list:
    data = keras.tree.map_structure(
        lambda x: x if x is None or hasattr(x, "shape") else np.asarray(x), data
    )
    leaves = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    rows = leaves[0].shape[0] if leaves else 0
    starts = range(0, rows, batch_size)[:count]
    return [
        keras.tree.map_structure(
            lambda x, start=start: None if x is None else x[start : start + batch_size],
            data,
        )
        for start in starts
    ]
