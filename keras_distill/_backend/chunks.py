"""Loops over chunks of rows that hold the temporaries of one chunk at a time.

Compilers unroll Python loops; on TensorFlow the loops of `keras.ops` run iterations in
parallel and its slice updates copy the whole tensor. So each backend has its own here.
"""

from collections.abc import Callable

import keras
from keras import ops


class Chunks:
    """N rows, divided into chunks.

    All chunks have the same size, as compilers need it: the last one starts early
    enough to be whole, so its first rows may also belong to the chunk before.

    Args:
        rows: N, a number, or a tensor while it is unknown.
        size: rows per chunk, at most N of them.
    """

    def __init__(self, rows, size):
        self.rows = rows
        if _is_symbolic(rows):
            self.size, self.count = rows, 1
        else:
            self.size = _larger(_smaller(size, rows), 1)
            self.count = (rows + self.size - 1) // self.size

    def walk(self, step: Callable, state):
        """Apply a function to all chunks in order, and return the last state.

        Args:
            step: function from a `Chunk` and the state to the next state, of the same
                structure, shapes and dtypes.
            state: the initial state. Its buffers are overwritten.
        """

        def body(i, state):
            return step(Chunk(self, i), state)

        backend = keras.backend.backend()
        if backend == "torch" or (isinstance(self.count, int) and self.count < 2):
            for i in range(self.count):
                state = body(i, state)
            return state
        if backend == "jax":
            return ops.fori_loop(0, self.count, body, state)
        import tensorflow as tf

        _, state = tf.while_loop(
            lambda i, _: i < self.count,
            lambda i, state: (i + 1, body(i, state)),
            (0, state),
            parallel_iterations=1,
        )
        return state


class Chunk:
    """One chunk of the rows, by its index from 0."""

    def __init__(self, chunks: Chunks, index):
        self.chunks = chunks
        self.begin = index * chunks.size
        self.start = _larger(_smaller(self.begin, chunks.rows - chunks.size), 0)

    def take(self, tensor):
        """Return the chunk's rows of a tensor `(N, ...)`."""
        shape = self.chunks.size, *ops.shape(tensor)[1:]
        return ops.slice(tensor, self._corner(tensor), shape)

    def new(self, values):
        """Return the rows of `values`, `(size, ...)`, that the chunk before lacks."""
        return values[self.begin - self.start :]

    def once(self, values):
        """Return `values`, `(size, D)`, with zeros in the rows of the chunk before."""
        shared = self.begin - self.start
        if isinstance(shared, int) and shared == 0:
            return values
        new = ops.arange(self.chunks.size, dtype="int32") >= shared
        return values * ops.cast(new, values.dtype)[:, None]

    def put(self, buffer, values):
        """Write the chunk's rows to a `buffer` in place, and return it."""
        if keras.backend.backend() == "torch":
            buffer[self.start : self.start + self.chunks.size] = values
            return buffer
        if _runs_kernels():
            import tensorflow as tf

            return tf.raw_ops.InplaceUpdate(x=buffer, i=self._indices(), v=values)
        return ops.slice_update(buffer, self._corner(buffer), values)

    def add(self, buffer, values):
        """Add to the chunk's rows of a `buffer` in place, and return it."""
        if _runs_kernels():
            import tensorflow as tf

            return tf.raw_ops.InplaceAdd(x=buffer, i=self._indices(), v=values)
        return self.put(buffer, self.take(buffer) + values)

    def _corner(self, tensor) -> tuple:
        return self.start, *[0] * (len(tensor.shape) - 1)

    def _indices(self):
        return self.start + ops.arange(self.chunks.size, dtype="int32")


def buffer(shape: tuple, dtype: str, init: bool = True):
    """Create a tensor, of zeros if `init`, for `Chunk.put` and `Chunk.add` to write to."""
    if _runs_kernels():
        import tensorflow as tf

        # `tf.zeros` would be a constant of the graph, overwritten for later calls too.
        return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=init)
    return (ops.zeros if init else ops.empty)(shape, dtype)


def empty_buffer(shape: tuple, dtype: str):
    """Create an uninitialized tensor, every row of which `Chunk.put` must write."""
    return buffer(shape, dtype, init=False)


def multiplies_in_place() -> bool:
    """Whether a product reuses the memory of a factor that is not read again.

    TensorFlow's graphs do, except those that XLA compiles.
    """
    if not _runs_kernels():
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def chunk_size(rows, count: int, least: int):
    """Return the size that divides the rows into `count` chunks, but at least `least`."""
    return rows if _is_symbolic(rows) else _larger((rows + count - 1) // count, least)


def _is_symbolic(rows) -> bool:
    """Whether JAX traces shapes alone and does not know the number of rows."""
    return keras.backend.backend() == "jax" and not isinstance(rows, int)


def _runs_kernels() -> bool:
    """Whether TensorFlow runs one kernel per operation, eagerly or in a graph."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.executing_eagerly() or not _xla_compiles(tf.compat.v1.get_default_graph())


def _xla_compiles(graph) -> bool:
    """Whether XLA will compile a graph that TensorFlow is tracing.

    Stands in for a public form of `control_flow_util.GraphOrParentsInXlaContext`. No
    public issue asks for one; tensorflow issue 63632 uses a private form too.
    """
    from tensorflow.python.ops import control_flow_util

    return control_flow_util.GraphOrParentsInXlaContext(graph)


def _smaller(first, second):
    numbers = isinstance(first, int) and isinstance(second, int)
    return min(first, second) if numbers else ops.minimum(first, second)


def _larger(first, second):
    numbers = isinstance(first, int) and isinstance(second, int)
    return max(first, second) if numbers else ops.maximum(first, second)
