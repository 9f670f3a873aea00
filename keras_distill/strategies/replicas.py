"""Replicas: how many share the step, and what they know together."""

from __future__ import annotations

import keras

NO_SAMPLES = (
    "A replica got no samples of a batch: each needs one or more at every step. Let the "
    "last batch hold as many samples as there are replicas, or leave it out with "
    "drop_remainder=True; data shared out by file need as many samples for each worker, "
    "else tf.data.experimental.AutoShardPolicy.DATA."
)


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
        tensor: `(B, ...)`; B may differ between replicas if it is not static.

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
    if context is None:
        return rows
    place = context.replica_id_in_sync_group
    if isinstance(count, int):
        return rows + place * count
    counts = context.all_gather(keras.ops.cast(count, "float32")[None], axis=0)
    return rows + keras.ops.cast(keras.ops.sum(counts[:place]), rows.dtype)


def mean_count(count):
    """Give the mean over replicas of how many samples each has in this step.

    A replica's mean of its own samples times `count / mean_count(count)` is its part of
    the mean over the global batch, of which the last one is seldom shared out evenly.
    With one replica, or a static count, it is the count.

    Args:
        count: B, the samples of this replica; above 0 on each.

    Example:
        >>> share = ops.divide(B, kd.strategies.mean_count(B))
    """
    context = _replica()
    if context is None or isinstance(count, int):
        return count
    import tensorflow as tf

    return context.all_reduce("sum", tf.cast(count, "float32")) / replica_count()


def with_samples(batch):
    """Give a replica's part of a batch, once it is known that every replica has one.

    Of no samples some layers make an error of their own, others nothing.

    Args:
        batch: a structure of tensors.
    """
    context, count = _replica(), keras.ops.shape(keras.tree.flatten(batch)[0])[0]
    if context is None or isinstance(count, int):
        return batch
    import tensorflow as tf

    without = context.all_reduce("sum", tf.cast(count == 0, "float32"))
    with tf.control_dependencies([tf.debugging.Assert(without == 0, [NO_SAMPLES])]):
        return keras.tree.map_structure(
            lambda x: None if x is None else tf.identity(x), batch
        )


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


def is_first_worker(model) -> bool:
    """Tell whether this process is the one that writes what all workers share."""
    if keras.backend.backend() != "tensorflow":
        return worker()[0] == 0
    resolver = model.distribute_strategy.cluster_resolver
    return resolver is None or resolver.task_id in (None, 0)
