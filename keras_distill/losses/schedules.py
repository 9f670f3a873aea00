"""Weights and temperatures: numbers, or schedules of steps."""

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


def at_step(value, step):
    """Return a number, or a schedule's value at a step."""
    return value(step) if isinstance(value, LearningRateSchedule) else value


def check_temperature(value) -> None:
    """Check that a number, or a schedule at its start, is above 0."""
    start = float(at_step(value, 0))
    if not start > 0.0:
        raise ValueError(
            f"temperature must be above 0; got {start:g}. Higher is softer; Hinton's MNIST "
            "students used 20, and 4 is common for image classifiers."
        )


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
