"""A replica's part of a mean over the global batch."""

from __future__ import annotations

import keras
from keras import ops


def shared(parts: dict, losses: dict, count, mean_count) -> dict:
    """Turn means over a replica's samples into its part of the mean over all.

    Keras counts each replica's mean alike, and so the samples of a smaller one more.

    Args:
        parts: means by name.
        losses: what gave them, by name; a sum over samples stays as it is.
        count: samples of this replica.
        mean_count: what `kd.strategies.mean_count` gives for it.
    """
    if count is mean_count:
        return parts
    share = ops.divide(count, mean_count)
    return {
        name: mean if _is_sum(losses[name]) else ops.cast(mean, "float32") * share
        for name, mean in parts.items()
    }


def _is_sum(loss) -> bool:
    losses = keras.tree.flatten(loss)
    return all(getattr(part, "reduction", None) == "sum" for part in losses)
