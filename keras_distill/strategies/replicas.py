"""Replicas: their number, and what they gather and reduce within a step."""

import keras

NO_SAMPLES = (
    "A replica got no samples of a batch: each needs one or more in every step. Use a last "
    "batch of at least as many samples as replicas, or drop it with drop_remainder=True. "
    "Data sharded by file must have as many samples for each worker, else use "
    "tf.data.experimental.AutoShardPolicy.DATA."
)


def replica_count() -> int:
    """Return the number of replicas that train in sync under the current strategy.

    On JAX a step is written for the global batch, so it counts as one replica.

    Example:
        >>> kd.strategies.replica_count()
        1
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def gather(tensor):
    """Gather the rows of all replicas on every replica, `(B_global, ...)`.

    It lets losses that compare samples with each other use the global batch. Gradients
    flow back to the replica that a row came from. With one replica it returns `tensor`.

    Args:
        tensor: `(B, ...)`; B may differ between replicas if it is not static.

    Example:
        >>> all_features = kd.strategies.gather(features)
    """
    context = _context()
    if context is None:
        return tensor
    import tensorflow as tf

    gathered = context.all_gather(tensor, axis=0)
    count = tensor.shape[0] and tensor.shape[0] * replica_count()
    return tf.ensure_shape(gathered, (count, *tensor.shape[1:]))


def local_rows(count):
    """Return the indices of this replica's rows in the result of `gather`, `(B,)`.

    Args:
        count: B, the number of this replica's rows.

    Example:
        >>> itself = ops.one_hot(kd.strategies.local_rows(32), 32)
    """
    rows = keras.ops.arange(count)
    context = _context()
    if context is None:
        return rows
    index = context.replica_id_in_sync_group
    if isinstance(count, int):
        return rows + index * count
    counts = context.all_gather(keras.ops.cast(count, "float32")[None], axis=0)
    return rows + keras.ops.cast(keras.ops.sum(counts[:index]), rows.dtype)


def mean_count(count):
    """Return the mean over replicas of the number of samples in this step.

    The mean over a replica's samples, times `count / mean_count(count)`, is its part of
    the mean over the global batch, the last of which is seldom split evenly. With one
    replica, or a static count, it returns `count`.

    Args:
        count: B, the number of this replica's samples; above 0 on every replica.

    Example:
        >>> factor = 32 / kd.strategies.mean_count(32)
    """
    context = _context()
    if context is None or isinstance(count, int):
        return count
    total = context.all_reduce("sum", keras.ops.cast(count, "float32"))
    return total / replica_count()


def require_samples(batch):
    """Return a replica's part of a batch, after checking that no replica's is empty.

    Without this, some layers raise an unrelated error on an empty batch, others none.
    """
    context, count = _context(), keras.ops.shape(keras.tree.flatten(batch)[0])[0]
    if context is None or isinstance(count, int):
        return batch
    import tensorflow as tf

    empty = context.all_reduce("sum", tf.cast(count == 0, "float32"))
    with tf.control_dependencies([tf.debugging.Assert(empty == 0, [NO_SAMPLES])]):
        return keras.tree.map_structure(
            lambda x: None if x is None else tf.identity(x), batch
        )


def _context():
    """Return the replica context; None with one replica and while a model is built."""
    if replica_count() == 1:
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()


def reducible(logs: dict) -> dict:
    """Return logs in a shape that Keras can average over replicas.

    Across workers Keras takes the mean over the first axis, which a scalar lacks.

    Args:
        logs: scalars by name.

    Example:
        >>> logs = kd.strategies.reducible({"loss": ops.ones(())})
    """
    if not across_workers():
        return logs
    return {name: keras.ops.reshape(value, (1,)) for name, value in logs.items()}


def across_workers() -> bool:
    """Whether several processes train in sync under TensorFlow."""
    if replica_count() == 1:
        return False
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def worker() -> tuple[int, int]:
    """Return this process's index among those that train in sync, and their number.

    Example:
        >>> kd.strategies.worker()
        (0, 1)
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.process_index(), jax.process_count()
    if not across_workers():
        return 0, 1
    import tensorflow as tf

    resolver = tf.distribute.get_strategy().cluster_resolver
    return resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])


def is_first_worker(model) -> bool:
    """Whether this process is the one that writes what all workers share."""
    if keras.backend.backend() != "tensorflow":
        return worker()[0] == 0
    resolver = model.distribute_strategy.cluster_resolver
    return resolver is None or resolver.task_id in (None, 0)
