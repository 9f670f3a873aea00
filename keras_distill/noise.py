"""Random numbers that seed and step determine, without a state."""

from __future__ import annotations

import keras
from keras import ops


def uniform(shape, seed: int, step):
    """Draw numbers in `[0, 1)`; a run that goes on from a checkpoint draws the same.

    Args:
        shape: of the numbers.
        seed: a number.
        step: of the optimiser, a number or a tensor.
    """
    step = ops.cast(step, "int32")
    noise = keras.random.uniform(shape, seed=seed)
    for place, count in enumerate((step % 997, step // 997 % 997), start=1):
        stride = keras.random.uniform(shape, seed=seed + place)
        noise = noise + ops.cast(count, "float32") * stride
    return noise - ops.floor(noise)
