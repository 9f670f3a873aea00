"""Replicas: how many share the step, and what they know together."""

from __future__ import annotations

import keras


def replica_count() -> int:
    """Give the number of replicas that train in step under the current strategy."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def gather(tensor):
    """Give every replica's rows of a tensor, `(B_global, ...)`, on each replica.

    Losses that compare samples with each other see the global batch by it. Gradients
    flow back to the replica that a row came from. With one replica it is the tensor.

    Args:
        tensor: `(B, ...)`, of the same size on each replica.

    Example:
        >>> everyone = kd.strategies.gather(features)
    """
    if replica_count() == 1:
        return tensor
    import tensorflow as tf

    everyone = tf.distribute.get_replica_context().all_gather(tensor, axis=0)
    count = tensor.shape[0] and tensor.shape[0] * replica_count()
    return tf.ensure_shape(everyone, (count, *tensor.shape[1:]))


def own_rows(count):
    """Give the places of this replica's rows in what `gather` gives, `(B,)`.

    Args:
        count: B, the rows of this replica.

    Example:
        >>> itself = ops.one_hot(kd.strategies.own_rows(B), N)
    """
    rows = keras.ops.arange(count)
    if replica_count() == 1:
        return rows
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return rows + context.replica_id_in_sync_group * count
