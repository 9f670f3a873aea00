"""A batch in portions, so that what a net makes of one stays in a CPU's caches."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import keras
from keras import ops

from keras_distill import taps
from keras_distill._backend.chunks import Chunk, Chunks, share_of


def in_portions(run: Callable, inputs, count: int) -> dict:
    """Run on the batch portion by portion; put together what comes out.

    Args:
        run: from inputs to a dict of tensors, batch first, of which a sample's does not
            depend on the other samples.
        inputs: a structure of tensors, batch first, and None.
        count: of portions; a batch of fewer samples has fewer.

    Raises:
        ValueError: inputs that are sparse, ragged or masked, or a tensor that comes out
            is not batch first.
    """
    if count == 1:
        return run(inputs)
    leaves = [leaf for leaf in keras.tree.flatten(inputs) if leaf is not None]
    _are_dense(leaves)
    rows = ops.shape(leaves[0])[0]
    chunks = Chunks(rows, share_of(rows, count, 1))
    count = chunks.count if isinstance(chunks.count, int) else count
    if count < 2:
        return run(inputs)
    found = []
    for number in range(count):
        chunk = Chunk(chunks, number)
        part = run(keras.tree.map_structure(lambda x, c=chunk: _taken(c, x), inputs))
        found.append({key: _new(chunk, key, x) for key, x in part.items()})
    return {key: ops.concatenate([part[key] for part in found]) for key in found[0]}


def count_of(portions: int) -> int:
    """Give a number of portions, once it is seen to be one."""
    whole = isinstance(portions, Integral) and not isinstance(portions, bool)
    if not whole or portions < 1:
        raise ValueError(f"portions is a whole number, 1 or more; got {portions!r}.")
    return int(portions)


def _are_dense(leaves) -> None:
    for leaf in leaves:
        dense = hasattr(leaf, "__array__")
        if not dense or taps.mask_of(leaf) is not None:
            raise ValueError(
                "A teacher takes dense inputs without a Keras mask in portions; got "
                f"{'a mask' if dense else type(leaf).__name__}. Leave portions out."
            )


def _taken(chunk, leaf):
    return None if leaf is None else chunk.take(leaf)


def _new(chunk, key, tensor):
    """Give of a portion's tensor the rows that are new."""
    size, rows = chunk.chunks.size, ops.shape(tensor)[0]
    wrong = (
        f"The rows of '{key}', {{}}, are not a portion's samples. Leave portions out."
    )
    if isinstance(size, int) and isinstance(rows, int):
        if rows != size:
            raise ValueError(wrong.format(f"{rows} for {size}"))
        return chunk.new(tensor)
    import tensorflow as tf

    tf.debugging.assert_equal(rows, size, wrong.format("counted in the step"))
    return chunk.new(tensor)
