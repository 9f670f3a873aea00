"""A cache that fits into memory: rows found inside the graph of a data pipeline."""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_distill.teachers.cache import rows
from keras_distill.teachers.cache.reading import Reader

# Above so many bytes rows are read from disk as they are asked for.
LIMIT = 2**28


class Resident:
    """All rows of a cache, as tensors.

    A batch is found by TensorFlow's own operations, which cost a small step less than a
    call of Python would.

    Args:
        reader: of the cache.
        views: how many the cache has of each sample.
    """

    def __init__(self, reader: Reader, views: int):
        import tensorflow as tf

        self.index, self.views = reader.index, views
        kept = np.concatenate([shard.whole_shard() for shard in reader.shards])
        known = rows.unpack(kept)
        with tf.device("CPU:0"):
            self.seen = tf.constant(kept[rows.SEEN].astype("float32"))
            self.columns = [
                tf.constant(values)
                for named in known.values()
                for values in named.values()
            ]

    def find(self, ids, views, *shown) -> tuple:
        """Give what is kept of a batch, and whether all of it is there and as shown.

        Args:
            ids: of the samples, `(B,)`.
            views: which view of each, `(B,)` or one.
            shown: what the teacher would be shown, each `(B, ...)`.
        """
        import tensorflow as tf

        places, known = self._places(tf.cast(ids, tf.int64))
        views = tf.cast(views, tf.int64)
        known &= (views >= 0) & (views < self.views)
        places = tf.where(known, views * self.index.count + places, 0)
        seen = tf.gather(self.seen, places)
        gap = tf.abs(_sketch(shown) - seen)
        same = tf.reduce_all(gap <= rows.TOLERANCE + 1e-3 * tf.abs(seen), axis=1)
        found = [tf.gather(column, places) for column in self.columns]
        return found, tf.reduce_all(known & same)

    def _places(self, ids):
        import tensorflow as tf

        count = self.index.count
        if self.index.in_order:
            return ids, (ids >= 0) & (ids < count)
        sorted_ids = tf.constant(self.index.ids.astype("int64"))
        found = tf.minimum(tf.searchsorted(sorted_ids, ids), count - 1)
        places = tf.gather(tf.constant(self.index.order.astype("int64")), found)
        return places, tf.gather(sorted_ids, found) == ids


def _sketch(shown):
    """Give what `rows.sketch` gives, of tensors."""
    import tensorflow as tf

    leaves = [
        tf.cast(tf.reshape(x, (-1, math.prod(x.shape[1:]))), tf.float32)
        for x in keras.tree.flatten(shown)
    ]
    flat = leaves[0] if len(leaves) == 1 else tf.concat(leaves, axis=1)
    length = tf.maximum(tf.norm(flat, axis=1), 1e-30)
    signs = tf.constant(rows.signs(flat.shape[1]))
    along = tf.linalg.matvec(flat, signs) / length
    return tf.stack([along, tf.math.log(length)], axis=1)
