"""Weights and temperatures: numbers, or schedules of steps."""

import numbers

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


def at_step(value, step):
    """Return a number, or a schedule's value at a step."""
    return value(step) if isinstance(value, LearningRateSchedule) else value


def start_of(value, what: str) -> float:
    """Return a number, or a schedule's value at the start; check that it is finite.

    Args:
        value: the number or schedule.
        what: names it in errors.
    """
    start = at_step(value, 0)
    if keras.ops.is_tensor(start) or isinstance(start, keras.Variable):
        start = keras.ops.convert_to_numpy(start)
    if isinstance(start, (np.ndarray, np.generic)) and start.size == 1:
        start = start.item()
    if isinstance(start, bool) or not isinstance(start, numbers.Real):
        raise TypeError(
            f"{what} must be a number or a keras.optimizers.schedules."
            f"LearningRateSchedule of numbers; got {start!r}."
        )
    if not np.isfinite(float(start)):
        raise ValueError(f"{what} must be finite; got {start:g}.")
    return float(start)


def check_number(value, what: str) -> None:
    """Check that an argument is a finite number of 0 or more."""
    if isinstance(value, LearningRateSchedule):
        raise TypeError(f"{what} must be a number, not a schedule; got {value!r}.")
    if start_of(value, what) < 0:
        raise ValueError(f"{what} must be 0 or more; got {value:g}.")


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
