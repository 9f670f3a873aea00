"""Raw data of any kind as batches that a function has prepared."""

import functools
from collections.abc import Callable

import keras
from keras import ops

from keras_distill._backend.optional import require
from keras_distill._backend.own_arrays import MappedDataset
from keras_distill.data.batches import without_tuning
from keras_distill.data.entry import WEIGHT, WHOLE, lists_to_tuples


def prepared_data(
    data: tuple, prepare: Callable, batch_size: int | None = None, shuffle: bool = False
):
    """Return data whose batches a function prepares while the step before runs.

    Args:
        data: `(x, y, sample_weight)` as `fit` takes them; lists of strings are tensors.
        prepare: from a batch's x, y and sample weights to a tuple of them.
        batch_size: of arrays. Default: 32.
        shuffle: whether arrays come in an order that each pass draws.

    Returns:
        A `tf.data.Dataset`; of a `keras.utils.PyDataset` or a generator one of its kind.

    Raises:
        ValueError: labels, weights or a batch size beside data that are batches.
    """
    x, *others = data
    if is_batches(x):
        given = (
            ("y", others[0]),
            ("sample_weight", others[1]),
            ("batch_size", batch_size),
        )
        if names := [name for name, value in given if value is not None]:
            raise ValueError(
                f"A {type(x).__name__} has labels, weights and batch size of its own; got "
                f"{' and '.join(names)} beside it. Leave them out."
            )
        _check_batched(x)
        return _mapped(x, prepare)
    prepared = _mapped(_batched(data, batch_size or 32, shuffle), prepare)
    prepared.order_is_drawn = shuffle
    return prepared


def _check_batched(x) -> None:
    """Check that the elements of a `tf.data.Dataset` are batches."""
    specs = keras.tree.flatten(getattr(x, "element_spec", ()))
    if any(getattr(spec, "shape", None) == () for spec in specs):
        raise ValueError(
            "The tf.data.Dataset has single samples; expected batches. Call .batch(n)."
        )


def is_batches(x) -> bool:
    """Whether data are batches, and not arrays or lists of samples."""
    kinds = "element_spec", "__next__"
    return isinstance(x, keras.utils.PyDataset) or any(hasattr(x, k) for k in kinds)


def weighted_inputs(x, y, sample_weight) -> tuple:
    """Return inputs that hold the weights where Keras would lose them, and the weights.

    Keras packs no weights without labels, and one array of weights for labels of several
    outputs once for each output, of which terms on other layers are none.
    """
    is_one = hasattr(sample_weight, "shape") and isinstance(y, (dict, list, tuple))
    if not (y is None or is_one) or sample_weight is None or is_batches(x):
        return x, sample_weight
    return {WHOLE: lists_to_tuples(x), WEIGHT: sample_weight}, None


def prepared_batch(data: tuple, prepare: Callable) -> tuple:
    """Return one batch, prepared now, as tensors."""
    batch = prepare(*data)
    return keras.tree.map_structure(ops.convert_to_tensor, batch)


def _mapped(data, prepare: Callable):
    if hasattr(data, "element_spec"):
        import tensorflow as tf

        mapped = data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        return without_tuning(mapped.prefetch(tf.data.AUTOTUNE))
    if isinstance(data, keras.utils.PyDataset):
        return MappedDataset(data, functools.partial(_prepared, prepare=prepare))
    return (_prepared(batch, prepare) for batch in data)


def _batched(data: tuple, batch_size: int, shuffle: bool):
    tf = require("tensorflow", "A model with a preprocessor")
    data = tuple(keras.tree.map_structure(_plain, part) for part in data)
    try:
        samples = tf.data.Dataset.from_tensor_slices(data)
    except ValueError as error:
        if "rank >= 1" not in str(error):
            raise
        raise ValueError(
            "Inputs, labels and weights must have a batch axis; got one value. Pass a "
            "list of samples."
        ) from error
    if shuffle:
        samples = samples.shuffle(int(samples.cardinality()))
    return samples.batch(batch_size)


def _plain(leaf):
    import tensorflow as tf

    is_tensor = isinstance(leaf, (tf.Tensor, tf.RaggedTensor))
    if is_tensor or not hasattr(leaf, "__array__"):
        return leaf
    return ops.convert_to_numpy(leaf)


def _prepared(batch, prepare: Callable) -> tuple:
    batch = prepare(*keras.utils.unpack_x_y_sample_weight(batch))
    return keras.tree.map_structure(_to_numpy, batch)


def _to_numpy(leaf):
    return leaf.numpy() if hasattr(leaf, "numpy") else ops.convert_to_numpy(leaf)
