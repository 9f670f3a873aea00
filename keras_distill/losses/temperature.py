"""The temperature that softens predictions, and the factor T^2 of their losses."""

from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill.losses.schedules import start_of

# Above it, predictions are close to each other, and T^2 magnifies what rounding leaves
# of their difference.
HIGH = 20.0
# Above it T^2 has no room in float32 next to what it multiplies; in float16 and with a
# target, whose log-probabilities are rounded, earlier.
HIGHEST, HIGHEST_OF_FLOAT16, HIGHEST_OF_TARGETS = 1e8, 200.0, 1e3


def check_temperature(
    value, dtype: str = "float32", highest: float = HIGHEST, of: str = "this loss"
) -> None:
    """Check that a number, or a schedule at its start, is above 0 and not too high.

    Args:
        value: the number or schedule.
        dtype: of the loss.
        highest: the highest that is computed right.
        of: what has this bound, for the error.
    """
    start = start_of(value, "temperature")
    if not start > 0.0:
        raise ValueError(
            f"temperature must be above 0; got {start:g}. Higher is softer; Hinton's MNIST "
            "students used 20, and 4 is common for image classifiers."
        )
    if dtype == "float16" and highest > HIGHEST_OF_FLOAT16:
        highest, of = HIGHEST_OF_FLOAT16, "a loss in float16"
    if start > highest:
        raise ValueError(
            f"temperature must be at most {highest:g} in {of}, above which T^2 magnifies "
            f"rounding errors; got {start:g}. At such temperatures soft targets are the "
            "squared difference of centered logits: use kd.losses.LogitRegression."
        )


def is_high(value) -> bool:
    """Whether a temperature is high, or may become so: a schedule."""
    return isinstance(value, LearningRateSchedule) or value > HIGH


def times_squared(values, temperature):
    """Return losses at a temperature times T^2, which keeps the size of the gradient."""
    return ops.square(temperature) * values
