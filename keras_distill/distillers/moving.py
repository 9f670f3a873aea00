"""Numbers that move while training: weights and temperatures, held in variables."""

from __future__ import annotations

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill.losses.base import at_step


def moving_variable(layer: keras.Layer, name: str, value) -> keras.Variable:
    """Make the variable that holds a number, or a schedule's value, beside the weights."""
    return layer.add_weight(
        shape=(),
        initializer=keras.initializers.Constant(float(at_step(value, 0))),
        trainable=False,
        dtype="float32",
        name=name,
        aggregation="only_first_replica",
    )


def advance(variable: keras.Variable, value, step) -> None:
    """Set a variable to its schedule's value; leave it where the value is a number."""
    if isinstance(value, LearningRateSchedule):
        variable.assign(ops.cast(value(step), variable.dtype))
