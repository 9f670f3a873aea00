"""Rows in chunks, one chunk after another, so that one chunk's temporaries are held.

Python's loops are unrolled by a compiler, and Keras's own run several iterations at
once on TensorFlow, whose updates of a part of a tensor copy the whole. So each backend
has its way here.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops


class Chunks:
    """N rows, so many at a time.

    All chunks are of one size, as compilers want it: the last begins early enough to be
    whole, and its first rows are then those of the chunk before.

    Args:
        rows: N, a number or, where it is not known yet, a tensor.
        size: of a chunk; no more than N is taken.
    """

    def __init__(self, rows, size):
        self.rows = rows
        if _is_symbol(rows):
            self.size, self.count = rows, 1
        else:
            self.size = _larger(_smaller(size, rows), 1)
            self.count = (rows + self.size - 1) // self.size

    def walk(self, step: Callable, state):
        """Take all chunks in turn.

        Args:
            step: from a `Chunk` and the state to the next state, of the same structure,
                shapes and types.
            state: to begin with. Its buffers are overwritten.
        """

        def body(i, state):
            return step(Chunk(self, i), state)

        if isinstance(self.count, int) and self.count < 2:
            return body(0, state) if self.count else state

        if keras.backend.backend() == "jax":
            return ops.fori_loop(0, self.count, body, state)
        if keras.backend.backend() == "torch":
            for i in range(self.count):
                state = body(i, state)
            return state
        import tensorflow as tf

        _, state = tf.while_loop(
            lambda i, _: i < self.count,
            lambda i, state: (i + 1, body(i, state)),
            (0, state),
            parallel_iterations=1,
        )
        return state


class Chunk:
    """Some of the rows.

    Args:
        chunks: which it is one of.
        number: which one, from 0.
    """

    def __init__(self, chunks: Chunks, number):
        self.chunks = chunks
        self.begin = number * chunks.size
        self.start = _larger(_smaller(self.begin, chunks.rows - chunks.size), 0)

    def take(self, tensor):
        """Give the chunk's rows of a tensor `(N, ...)`."""
        shape = self.chunks.size, *ops.shape(tensor)[1:]
        return ops.slice(tensor, self._corner(tensor), shape)

    def new(self, values):
        """Give the rows of `values`, `(size, ...)`, that the chunk before had not."""
        behind = self.begin - self.start
        return values if isinstance(behind, int) and behind == 0 else values[behind:]

    def once(self, values):
        """Set the rows `(size, D)` to zero that the chunk before had already."""
        behind = self.begin - self.start
        if isinstance(behind, int) and behind == 0:
            return values
        new = ops.arange(self.chunks.size, dtype="int32") >= behind
        return values * ops.cast(new, values.dtype)[:, None]

    def put(self, buffer, values):
        """Write the chunk's rows into a `buffer`, in place."""
        if keras.backend.backend() == "torch":
            buffer[self.start : self.start + self.chunks.size] = values
            return buffer
        if _runs_kernels():
            import tensorflow as tf

            return tf.raw_ops.InplaceUpdate(x=buffer, i=self._places(), v=values)
        return ops.slice_update(buffer, self._corner(buffer), values)

    def add(self, buffer, values):
        """Add to the chunk's rows of a `buffer`, in place."""
        if keras.backend.backend() == "torch":
            buffer[self.start : self.start + self.chunks.size] += values
            return buffer
        if _runs_kernels():
            import tensorflow as tf

            return tf.raw_ops.InplaceAdd(x=buffer, i=self._places(), v=values)
        return self.put(buffer, self.take(buffer) + values)

    def _corner(self, tensor) -> tuple:
        return self.start, *[0] * (len(tensor.shape) - 1)

    def _places(self):
        return self.start + ops.arange(self.chunks.size, dtype="int32")


def buffer(shape: tuple, dtype: str):
    """Make a tensor of zeros for `Chunk.put` and `Chunk.add` to write into."""
    if _runs_kernels():
        import tensorflow as tf

        # Zeros would be a constant of the graph, and be overwritten for good.
        return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=True)
    return ops.zeros(shape, dtype)


def unwritten(shape: tuple, dtype: str):
    """Make a tensor for `Chunk.put` to write every row of, which may hold anything."""
    if _runs_kernels():
        import tensorflow as tf

        return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=False)
    return ops.empty(shape, dtype)


def multiplies_in_place() -> bool:
    """Tell whether a product takes a factor's memory where nothing else reads that.

    So it is in TensorFlow's graphs, but for those that XLA compiles.
    """
    if not _runs_kernels():
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def share_of(rows, share: int, least: int):
    """Give the size of chunks, a share of the rows but so many at least."""
    return rows if _is_symbol(rows) else _larger((rows + share - 1) // share, least)


def _is_symbol(rows) -> bool:
    """Tell whether JAX runs on shapes alone, one of which it does not know."""
    return keras.backend.backend() == "jax" and not isinstance(rows, int)


def _runs_kernels() -> bool:
    """Tell whether TensorFlow runs operation by operation, not as XLA compiles it."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    # Nothing public tells it while a function is traced.
    from tensorflow.python.ops import control_flow_util

    if tf.executing_eagerly():
        return True
    graph = tf.compat.v1.get_default_graph()
    return not control_flow_util.GraphOrParentsInXlaContext(graph)


def _smaller(first, second):
    numbers = isinstance(first, int) and isinstance(second, int)
    return min(first, second) if numbers else ops.minimum(first, second)


def _larger(first, second):
    numbers = isinstance(first, int) and isinstance(second, int)
    return max(first, second) if numbers else ops.maximum(first, second)
