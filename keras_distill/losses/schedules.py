"""Weights and temperatures: numbers, or schedules of steps."""

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


def at_step(value, step):
    """Return a number, or a schedule's value at a step."""
    return value(step) if isinstance(value, LearningRateSchedule) else value


def scheduled_variable(layer: keras.Layer, name: str, value) -> keras.Variable:
    """Create the variable for a number or a schedule's value among a layer's weights."""
    return layer.add_weight(
        shape=(),
        initializer=keras.initializers.Constant(float(at_step(value, 0))),
        trainable=False,
        dtype="float32",
        name=name,
        aggregation="only_first_replica",
    )


def advance(variable: keras.Variable, value, step) -> None:
    """Assign a schedule's value at a step to its variable; a number stays as it is."""
    if isinstance(value, LearningRateSchedule):
        variable.assign(ops.cast(value(step), variable.dtype))
