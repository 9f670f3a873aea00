"""Weights and temperatures: numbers, or schedules of steps."""

import numbers

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill._backend.number_checks import as_number, check_finite

# The weight of a term that is measured as `fit` begins, and its value until then.
BALANCED, UNMEASURED = "balanced", -1.0


def at_step(value, step):
    """Return a number, or a schedule's value at a step."""
    return value(step) if isinstance(value, LearningRateSchedule) else value


def start_of(value, what: str) -> float:
    """Return a number, or a schedule's value at the start; check that it is finite.

    Args:
        value: the number or schedule.
        what: names it in errors.
    """
    start = as_number(at_step(value, 0))
    if isinstance(start, bool) or not isinstance(start, numbers.Real):
        raise TypeError(
            f"{what} must be a number or a keras.optimizers.schedules."
            f"LearningRateSchedule of numbers; got {start!r}."
        )
    if not np.isfinite(float(start)):
        raise ValueError(f"{what} must be finite; got {start:g}.")
    return float(start)


def scheduled_variable(layer: keras.Layer, name: str, value) -> keras.Variable:
    """Create the variable for a number or a schedule's value among a layer's weights."""
    start = UNMEASURED if value == BALANCED else float(at_step(value, 0))
    return layer.add_weight(
        shape=(),
        initializer=keras.initializers.Constant(start),
        trainable=False,
        dtype="float32",
        name=name,
        aggregation="only_first_replica",
    )


def current(variables: dict) -> dict:
    """Return the values of variables by name, as tensors."""
    return {name: ops.convert_to_tensor(x) for name, x in variables.items()}


def advance(variable: keras.Variable, value, step) -> None:
    """Assign a schedule's value at a step to its variable; a number stays as it is."""
    if isinstance(value, LearningRateSchedule):
        variable.assign(ops.cast(value(step), variable.dtype))


@keras.saving.register_keras_serializable(package="keras_distill")
class ScaledSchedule(LearningRateSchedule):
    """A schedule's values times a factor.

    Args:
        schedule: of steps.
        factor: a number.

    Example:
        >>> decay = keras.optimizers.schedules.CosineDecay(1.0, 10_000)
        >>> kd.Term(kd.losses.Hint(), weight=kd.ScaledSchedule(decay, 4.5))
    """

    def __init__(self, schedule: LearningRateSchedule, factor: float):
        super().__init__()
        check_finite(factor=factor)
        self.schedule, self.factor = schedule, float(factor)

    def __call__(self, step):
        """Return the value at a step."""
        return self.schedule(step) * self.factor

    def get_config(self) -> dict:
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict) -> "ScaledSchedule":
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["factor"])


def peak(schedule: LearningRateSchedule) -> float:
    """Return the largest value of a schedule over the first million steps, about."""
    steps = [0, *(2**i for i in range(21))]
    return max(float(ops.convert_to_numpy(schedule(step))) for step in steps)
