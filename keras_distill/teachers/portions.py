"""A batch in portions, so that the tensors of one stay in a CPU's caches."""

from collections.abc import Callable
from numbers import Integral

import keras
from keras import ops

from keras_distill import taps
from keras_distill._backend.chunks import Chunk, Chunks, chunk_size
from keras_distill._backend.keras_layers import with_mask


def in_portions(run: Callable, inputs, count: int) -> dict:
    """Run on the batch portion by portion; concatenate the outputs.

    Args:
        run: from inputs to a dict of tensors, batch first. A sample's must not depend on
            the other samples.
        inputs: a structure of tensors, batch first, and None.
        count: number of portions; at most one per sample.

    Raises:
        ValueError: inputs are sparse, ragged or masked, or an output is not batch first.
    """
    if count == 1:
        return run(inputs)
    leaves = [leaf for leaf in keras.tree.flatten(inputs) if leaf is not None]
    _check_dense(leaves)
    rows = ops.shape(leaves[0])[0]
    chunks = Chunks(rows, chunk_size(rows, count, 1))
    count = chunks.count if isinstance(chunks.count, int) else count
    if count < 2:
        return run(inputs)

    def run_portion(number):
        chunk = Chunk(chunks, number)
        take = lambda x: None if x is None else chunk.take(x)  # noqa: E731
        tensors = run(keras.tree.map_structure(take, inputs))
        return {key: _new_rows(chunk, key, x) for key, x in tensors.items()}

    parts = [run_portion(number) for number in range(count)]
    return {key: _joined([part[key] for part in parts]) for key in parts[0]}


def check_portions(portions: int) -> int:
    """Return a number of portions, which must be a whole number of at least 1."""
    whole = isinstance(portions, Integral) and not isinstance(portions, bool)
    if not whole or portions < 1:
        raise ValueError(f"portions is an integer of at least 1; got {portions!r}.")
    return int(portions)


def _check_dense(leaves) -> None:
    for leaf in leaves:
        dense = hasattr(leaf, "__array__")
        if not dense or taps.mask_of(leaf) is not None:
            raise ValueError(
                "A teacher takes dense inputs without a Keras mask in portions; got "
                f"{'a mask' if dense else type(leaf).__name__}. Leave portions out."
            )


def _new_rows(chunk, key, tensor):
    """Return the rows of a portion's tensor that no portion before it had."""
    size, rows = chunk.chunks.size, ops.shape(tensor)[0]
    wrong = (
        f"The rows of '{key}', {{}}, are not a portion's samples. Leave portions out."
    )
    if isinstance(size, int) and isinstance(rows, int):
        if rows != size:
            raise ValueError(wrong.format(f"{rows} for {size}"))
        return _new(chunk, tensor)
    import tensorflow as tf

    tf.debugging.assert_equal(rows, size, wrong.format("counted in the step"))
    return _new(chunk, tensor)


def _new(chunk, tensor):
    mask, rows = taps.mask_of(tensor), chunk.new(tensor)
    return rows if mask is None else with_mask(rows, chunk.new(mask))


def _joined(parts):
    """Concatenate tensors and their masks."""
    masks, joined = [taps.mask_of(part) for part in parts], ops.concatenate(parts)
    return joined if masks[0] is None else with_mask(joined, ops.concatenate(masks))
