"""A batch in portions, so that what a net makes of one stays in a CPU's caches."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from keras_distill.chunks import Chunk, Chunks, share_of


def in_portions(run: Callable, inputs, count: int) -> dict:
    """Run on one portion of the batch after another; put together what comes out.

    Args:
        run: from inputs to a dict of tensors, batch first, of which a sample's does not
            depend on the other samples.
        inputs: a structure of tensors, batch first.
        count: of portions; a batch of fewer samples has fewer.
    """
    rows = ops.shape(keras.tree.flatten(inputs)[0])[0]
    if count == 1 or (isinstance(rows, int) and rows < 2):
        return run(inputs)
    chunks = Chunks(rows, share_of(rows, count, 1))
    found = []
    for number in range(chunks.count if isinstance(chunks.count, int) else count):
        chunk = Chunk(chunks, number)
        part = run(keras.tree.map_structure(chunk.take, inputs))
        found.append({key: chunk.new(tensor) for key, tensor in part.items()})
    return {key: ops.concatenate([part[key] for part in found]) for key in found[0]}


def is_count(portions) -> int:
    """Check a number of portions."""
    if not isinstance(portions, int) or portions < 1:
        raise ValueError(f"portions is how many, 1 or more; got {portions!r}.")
    return portions
