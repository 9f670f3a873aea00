"""Terms as lines of Python to paste."""

import inspect

import keras

from keras_distill.distillers import Term
from keras_distill.taps import Tap

# What every loss takes, and a line leaves out.
_COMMON = "name", "reduction", "dtype"


def line(term: Term, weight=None, note: str = "") -> str:
    """Return a line for the list of terms.

    What has no short form, such as a layer, stands in it as `...`.

    Args:
        term: of a distiller.
        weight: in place of the term's.
        note: a comment at its end.
    """
    arguments = [_call(term.loss)]
    taps = [_taps(term.student), _taps(term.teacher)]
    if taps != ['"logits"', '"logits"']:
        arguments += taps if term.teacher else taps[:1]
    if term.name != term.loss.name:
        arguments.append(f'name="{term.name}"')
    for name, default in (
        ("adapter", "auto"),
        ("mask", "auto"),
        ("teacher_adapter", None),
    ):
        value = getattr(term, name)
        if not (value is None and default is None) and value != default:
            arguments.append(f"{name}={_value(value)}")
    weight = term.weight if weight is None else weight
    arguments.append(f"weight={_value(weight)}")
    return f"kd.Term({', '.join(arguments)})," + (f"  # {note}" if note else "")


def _taps(taps) -> str:
    values = [_tap(tap) for tap in taps]
    return values[0] if len(values) == 1 else f"({', '.join(values)})"


def _tap(tap: Tap) -> str:
    if tap == Tap(tap.path):
        return f'"{tap.path}"'
    parts = [f'"{tap.path}"']
    usual = Tap(tap.path, tap.call, tap.side).kind
    for name, default in (("call", 0), ("side", "output"), ("kind", usual)):
        if getattr(tap, name) != default:
            parts.append(f"{name}={getattr(tap, name)!r}")
    return f"kd.Tap({', '.join(parts)})"


def _call(instance) -> str:
    """Return the constructor's call that creates an object of this package."""
    module = type(instance).__module__.split(".")
    room = f"{module[1]}." if module[:1] == ["keras_distill"] else ""
    name = type(instance).__name__
    if not room:
        return f"{name}(...)"
    parameters = inspect.signature(type(instance).__init__).parameters
    parts = []
    for parameter in list(parameters.values())[1:]:
        value = getattr(instance, parameter.name, parameter.default)
        is_default = value is parameter.default or value == parameter.default
        if parameter.name not in _COMMON and not is_default:
            keyword = (
                ""
                if parameter.kind == parameter.POSITIONAL_OR_KEYWORD
                and len(parts) == list(parameters).index(parameter.name) - 1
                else f"{parameter.name}="
            )
            parts.append(keyword + _value(value))
    return f"kd.{room}{name}({', '.join(parts)})"


def _value(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None or isinstance(value, (bool, int, str, list, tuple)):
        return repr(value).replace("'", '"')
    is_own = type(value).__module__.startswith("keras_distill.")
    if is_own and not isinstance(value, keras.Variable):
        return _call(value)
    return "..."
