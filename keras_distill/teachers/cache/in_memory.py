"""Rows of a cache that fits into memory, looked up within a data pipeline's graph."""

import math

import keras
import numpy as np

from keras_distill.teachers.cache import reading, rows
from keras_distill.teachers.cache.reading import Reader

# A cache of more bytes is read from disk batch by batch.
LIMIT = 2**28


class InMemoryRows:
    """All rows of a cache, as tensors.

    A batch is looked up by TensorFlow operations, which slow a small step down less than
    a call of Python does.
    """

    def __init__(self, reader: Reader):
        import tensorflow as tf

        self.index, self.views = reader.index, reader.contents.views
        stored = np.concatenate([shard.all_rows() for shard in reader.shards])
        reader.close()
        _check_order(stored[rows.ID].reshape(self.views, -1))
        self.exact = reader.contents.exact
        marks = [
            name for name in (rows.SKETCH, rows.DIGEST) if name in stored.dtype.names
        ]
        with tf.device("CPU:0"):
            self.marks = {name: tf.constant(_native(stored[name])) for name in marks}
            self.columns = [
                tf.constant(values)
                for named in rows.unpack(stored).values()
                for values in named.values()
            ]

    def find(self, ids, views, *inputs) -> tuple:
        """Return a batch's cached values, and whether all ids and inputs match.

        Args:
            ids: of the samples, `(B,)`.
            views: index of each sample's view, `(B,)` or one for all.
            inputs: what the teacher would take, each `(B, ...)`.
        """
        import tensorflow as tf

        positions, exists = self._positions(tf.cast(ids, tf.int64))
        views = tf.cast(views, tf.int64)
        exists &= (views >= 0) & (views < self.views)
        positions = tf.where(exists, views * self.index.count + positions, 0)
        exact = self.exact or (False,) * len(inputs)
        pairs = list(zip(inputs, exact, strict=True))
        if rows.SKETCH in self.marks:
            stored = tf.gather(self.marks[rows.SKETCH], positions)
            gap = tf.abs(_sketch([x for x, is_exact in pairs if not is_exact]) - stored)
            near = gap <= rows.TOLERANCE + 1e-3 * tf.abs(stored)
            exists &= tf.reduce_all(near, axis=1)
        if rows.DIGEST in self.marks:
            stored = tf.gather(self.marks[rows.DIGEST], positions)
            exists &= _digest([x for x, is_exact in pairs if is_exact]) == stored
        values = [tf.gather(column, positions) for column in self.columns]
        return values, tf.reduce_all(exists)

    def _positions(self, ids):
        import tensorflow as tf

        count = self.index.count
        if self.index.in_order:
            return ids, (ids >= 0) & (ids < count)
        sorted_ids = tf.constant(self.index.ids.astype("int64"))
        ranks = tf.minimum(tf.searchsorted(sorted_ids, ids), count - 1)
        positions = tf.gather(tf.constant(self.index.order.astype("int64")), ranks)
        return positions, tf.gather(sorted_ids, ranks) == ids


def _check_order(ids: np.ndarray) -> None:
    """Check that all views, `(V, N)`, have the samples in one order."""
    for view, found in enumerate(ids):
        reading.check_ids(found, ids[0], np.broadcast_to(view, found.shape))


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype("float32" if values.dtype.kind == "f" else "int64")


def _digest(inputs):
    """Compute `rows.digest` of tensors of integers."""
    import tensorflow as tf

    flat = [
        tf.cast(tf.reshape(x, (-1, math.prod(x.shape[1:]))), tf.int64) for x in inputs
    ]
    flat = flat[0] if len(flat) == 1 else tf.concat(flat, axis=1)
    factors = tf.constant(rows.odd_numbers(flat.shape[1]).view("int64"))
    return tf.reduce_sum(flat * factors, axis=1)


def _sketch(inputs):
    """Compute `rows.sketch` of tensors."""
    import tensorflow as tf

    leaves = [
        tf.cast(tf.reshape(x, (-1, math.prod(x.shape[1:]))), tf.float32)
        for x in keras.tree.flatten(inputs)
    ]
    flat = leaves[0] if len(leaves) == 1 else tf.concat(leaves, axis=1)
    length = tf.maximum(tf.norm(flat, axis=1), 1e-30)
    signs = tf.constant(rows.signs(flat.shape[1]))
    along = tf.linalg.matvec(flat, signs) / length
    return tf.stack([along, tf.math.log(length)], axis=1)
