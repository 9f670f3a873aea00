"""Replicas: how many share the step, and what they know together."""

from __future__ import annotations

import keras


def replica_count() -> int:
    """Give the number of replicas that train in step under the current strategy.

    With JAX a step is written for the global batch, so it counts as one.

    Example:
        >>> kd.strategies.replica_count()
        1
    """
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
    context = _replica()
    if context is None:
        return tensor
    import tensorflow as tf

    everyone = context.all_gather(tensor, axis=0)
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
    context = _replica()
    return rows if context is None else rows + context.replica_id_in_sync_group * count


def _replica():
    """Give what this replica knows of the others; None while a model is being built."""
    if replica_count() == 1:
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()


def reducible(logs: dict) -> dict:
    """Give logs in a shape that Keras can average over replicas.

    Across workers Keras takes the mean over the first axis, which a scalar has not.

    Args:
        logs: scalars by name.

    Example:
        >>> logs = kd.strategies.reducible({"loss": loss})
    """
    if not across_workers():
        return logs
    return {name: keras.ops.reshape(value, (1,)) for name, value in logs.items()}


def across_workers() -> bool:
    """Tell whether several processes train in step under TensorFlow."""
    if replica_count() == 1:
        return False
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def worker() -> tuple[int, int]:
    """Give the number of this process among those that train in step, and their count.

    Example:
        >>> kd.strategies.worker()
        (0, 1)
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.process_index(), jax.process_count()
    if backend == "tensorflow" and across_workers():
        import tensorflow as tf

        resolver = tf.distribute.get_strategy().cluster_resolver
        return resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])
    return 0, 1
