"""Checks of arguments that are numbers: of finite ones and of integers."""

import math
from numbers import Integral, Real

import keras
import numpy as np


def as_number(value):
    """Return the number of a tensor, variable or array of one; others as they are."""
    if keras.ops.is_tensor(value) or isinstance(value, keras.Variable):
        value = keras.ops.convert_to_numpy(value)
    if isinstance(value, (np.ndarray, np.generic)) and value.size == 1:
        return value.item()
    return value


def check_finite(**numbers) -> None:
    """Check that arguments, by their names, are finite numbers.

    Raises:
        TypeError: one is no number, as a string, None, True or a complex number.
        ValueError: one is NaN or infinite.

    Example:
        >>> check_finite(margin=0.1, power=2)
    """
    for name, value in numbers.items():
        number = _checked_real(name, value, "a number")
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite; got {number:g}.")


def check_in(low: float, high: float = math.inf, /, **numbers) -> None:
    """Check that arguments, by their names, are finite numbers from `low` to `high`."""
    check_finite(**numbers)
    for name, value in numbers.items():
        number = as_number(value)
        if not low <= number <= high:
            bounds = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            raise ValueError(f"{name} must be {bounds}; got {number:g}.")


def check_above(low: float, /, **numbers) -> None:
    """Check that arguments, by their names, are finite numbers above `low`."""
    check_finite(**numbers)
    for name, value in numbers.items():
        number = as_number(value)
        if not number > low:
            raise ValueError(f"{name} must be above {low:g}; got {number:g}.")


def check_integers(low: int, /, **numbers) -> None:
    """Check that arguments, by their names, are integers of `low` or more.

    Raises:
        TypeError: one is no number.
        ValueError: one is not whole, or below `low`.

    Example:
        >>> check_integers(1, width=128)
    """
    for name, value in numbers.items():
        number = _checked_real(name, value, "an integer")
        if not isinstance(number, Integral) or number < low:
            raise ValueError(
                f"{name} must be an integer of {low} or more; got {number!r}."
            )


def _checked_real(name: str, value, what: str):
    number = as_number(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{name} must be {what}; got {value!r}.")
    return number
