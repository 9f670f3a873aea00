"""Check that every public class and function is in the reference pages.

    python docs/check_api.py

Public are the names in `keras_distill.__all__` and, for modules among them, the names
in their `__all__` or, without one, the names without underscore that they define.
The pages list each in an autosummary table, from which its own page is generated.
"""

import importlib
import inspect
import pathlib
import re
import sys

import keras_distill

PAGES = pathlib.Path(__file__).parent / "reference"
ENTRY = re.compile(r"^ +~?(keras_distill\.[\w.]+)$", re.MULTILINE)


def public_objects():
    """Return `(name, object, exported)`; exported if it is in an `__all__`."""
    objects = []
    for name in keras_distill.__all__:
        member = getattr(keras_distill, name)
        if inspect.ismodule(member):
            objects += _objects_of(member)
        else:
            objects.append((f"keras_distill.{name}", member, True))
    return objects


def _objects_of(module):
    exported = getattr(module, "__all__", None)
    return [
        (f"{module.__name__}.{name}", member, exported is not None)
        for name, member in inspect.getmembers(module)
        if (inspect.isclass(member) or inspect.isfunction(member))
        and (name in exported if exported is not None else _defined(module, member))
    ]


def _defined(module, member):
    return member.__module__ == module.__name__ and not member.__name__.startswith("_")


def documented_objects():
    """Return the objects in the reference pages by name."""
    objects = {}
    for page in sorted(PAGES.glob("*.md")):
        for name in ENTRY.findall(page.read_text("utf-8")):
            module, _, member = name.rpartition(".")
            objects[name] = getattr(importlib.import_module(module), member)
    return objects


def undocumented():
    """Return the names of the public objects that are in no reference page."""
    documented = {id(member) for member in documented_objects().values()}
    return [
        name for name, member, _ in public_objects() if id(member) not in documented
    ]


if __name__ == "__main__":
    missing = undocumented()
    if missing:
        print(f"Missing from {PAGES.name}/*.md; add each to an autosummary table:")
        print("\n".join(f"  {name}" for name in missing))
        sys.exit(1)
    print(f"All {len(public_objects())} public names are in the reference.")
