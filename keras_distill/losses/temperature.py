"""The temperature that softens predictions, and the factor T^2 of their losses."""

from keras import ops

from keras_distill.losses.schedules import at_step


def check_temperature(value) -> None:
    """Check that a number, or a schedule at its start, is above 0."""
    start = float(at_step(value, 0))
    if not start > 0.0:
        raise ValueError(
            f"temperature must be above 0; got {start:g}. Higher is softer; Hinton's MNIST "
            "students used 20, and 4 is common for image classifiers."
        )


def times_squared(values, temperature):
    """Return losses at a temperature times T^2, which keeps the size of the gradient."""
    return ops.square(temperature) * values
