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


def summary(value):
    """Return a plain value as it is, anything else as a short text.

    Args:
        value: an argument of a constructor, such as a number or a schedule.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        return f"array {value.shape}"
    if isinstance(value, (list, tuple)):
        more = ", ..." if len(value) > 8 else ""
        return f"({', '.join(str(summary(x)) for x in value[:8])}{more})"
    name = getattr(value, "__name__", type(value).__name__)
    if isinstance(value, type) or not hasattr(value, "get_config"):
        return name
    if type(value).__repr__ is not object.__repr__:
        return repr(value)
    return call_text(name, _given(value))


def own_arguments(instance, base: type) -> dict:
    """Return the arguments of an instance's constructors below `base` that are set."""
    classes = type(instance).__mro__
    found = {}
    for cls in classes[: classes.index(base)]:
        names = _argument_names(cls) if "__init__" in vars(cls) else ()
        found |= {name: getattr(instance, name, None) for name in names}
    shared = inspect.signature(base.__init__).parameters
    return {k: x for k, x in found.items() if x is not None and k not in shared}


def call_text(name: str, arguments: dict) -> str:
    """Return the call of a class with arguments, as text."""
    texts = [
        f"{key}={value!r}" if isinstance(value, str) else f"{key}={summary(value)}"
        for key, value in arguments.items()
    ]
    return f"{name}({', '.join(texts)})"


def _given(instance) -> dict:
    """Return the arguments of an instance's constructor that are not the defaults."""
    parameters = inspect.signature(type(instance).__init__).parameters
    names = [key for key in parameters if key not in ("self", "name", "dtype")]
    found = {key: getattr(instance, key, None) for key in names}
    return {
        key: value
        for key, value in found.items()
        if value is not None and not _is_default(value, parameters[key].default)
    }


def _is_default(value, default) -> bool:
    is_same = type(value) is type(default) or isinstance(value, (int, float))
    return value is default or bool(is_same and np.array_equal(value, default))
