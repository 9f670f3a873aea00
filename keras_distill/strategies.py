"""Replicas: how many share the step."""

from __future__ import annotations

import keras


def replica_count() -> int:
    """Give the number of replicas that train in step under the current strategy."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
