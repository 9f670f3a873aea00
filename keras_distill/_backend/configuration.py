"""Configurations: the arguments of an object's constructors, read from its attributes."""

import inspect

import keras
import numpy as np


def arguments(instance, base: type, *more: str) -> dict:
    """Return the arguments of an instance's constructors below `base`, and `more`.

    Each is the attribute of its name; Keras objects are serialized and arrays become
    lists. A class with a `get_config` of its own adds its constructor's there instead.

    Raises:
        ValueError: an argument has no attribute of its name.
    """
    names = list(more)
    classes = type(instance).__mro__
    for cls in classes[: classes.index(base)]:
        if "__init__" in vars(cls) and "get_config" not in vars(cls):
            names += _argument_names(cls)
    missing = [name for name in names if not hasattr(instance, name)]
    if missing:
        raise ValueError(
            f"The configuration of {type(instance).__name__} is its constructor's "
            f"arguments, read from attributes of the same names; it has none for {missing}. "
            "Assign them in __init__, or define get_config."
        )
    return {name: _plain(getattr(instance, name)) for name in names}


def _argument_names(cls: type) -> list[str]:
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [x.name for x in parameters if x.kind not in variadic]


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return value
