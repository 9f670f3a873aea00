"""Which names have a page in the reference, and which methods a page lists."""

import functools
import inspect
import re

import check_api

NAME = re.compile(r"(?:kd|keras_distill)((?:\.\w+)+)(?:\(.*\))?", re.DOTALL)
CLASS = re.compile(r"([A-Z]\w+)(?:\(.*\))?", re.DOTALL)

# A distiller has many public methods that its parts call; a user calls these.
DISTILLER = ["compile", "fit", "evaluate", "predict", "call", "export", "get_params"]
DISTILLER += ["train_step", "test_step", "metrics", "output_names"]
METHODS = {
    "keras_distill.Distiller": ["set_teacher", *DISTILLER],
    "keras_distill.MutualDistiller": DISTILLER,
    "keras_distill.SelfDistiller": ["exit", *DISTILLER],
}
SPECIAL = ("__call__", "__getitem__")
# Methods that Keras calls.
HOOKS = re.compile(r"on_\w+|set_model|build|update_step|\w*_config")


@functools.cache
def documented():
    """Return the documented objects by name."""
    return check_api.documented_objects()


@functools.cache
def _names():
    return {id(member): name for name, member in documented().items()}


@functools.cache
def _classes():
    classes = [name for name, x in documented().items() if inspect.isclass(x)]
    return {name.rpartition(".")[2]: name for name in classes}


def documented_name(code, bare_classes=False):
    """Return the documented name that code such as `kd.Term(...)` refers to, or None.

    With `bare_classes`, the name of a class alone is recognized too: `Term`.
    """
    if bare_classes and (match := CLASS.fullmatch(code)):
        return _classes().get(match[1])
    match = NAME.fullmatch(code)
    return _find(match[1].split(".")[1:]) if match else None


def _find(path):
    """Return the name of the object at a path; a method's begins with its class's."""
    member = check_api.keras_distill
    for index, part in enumerate(path):
        member = getattr(member, part, None)
        if id(member) in _names():
            return ".".join([_names()[id(member)], *path[index + 1 :]])
    return None


def methods():
    """Return by name of a class the public methods that its page lists."""
    return {
        name: _present(METHODS[name], member) if name in METHODS else _methods(member)
        for name, member in documented().items()
        if inspect.isclass(member)
    }


def _present(names, cls):
    return [name for name in names if _is_documented(cls, name)]


def _methods(cls):
    """List methods with a docstring, less those of a base class with its own page."""
    return [
        name
        for name in dir(cls)
        if (name in SPECIAL or not name.startswith("_"))
        and not HOOKS.fullmatch(name)
        and _is_documented(cls, name)
        and (_owner(cls, name) is cls or id(_owner(cls, name)) not in _names())
    ]


def _owner(cls, name):
    return next((base for base in cls.__mro__ if name in vars(base)), None)


def _is_documented(cls, name):
    """Whether a class of the package defines the method or property with a docstring."""
    owner = _owner(cls, name)
    if owner is None or not owner.__module__.startswith("keras_distill"):
        return False
    member = vars(owner)[name]
    for wrapped in ("fget", "__func__", "func"):
        member = getattr(member, wrapped, member)
    return callable(member) and bool(member.__doc__)
