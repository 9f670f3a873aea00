"""Check that every public class and function is in the reference pages.

    python docs/check_api.py

Public is what `keras_distill.__all__` names, and in the modules among it what their
`__all__` names or, without one, what they define under a name without underscore.
The pages name each by an autodoc directive.
"""

import importlib
import inspect
import pathlib
import re
import sys

import keras_distill

PAGES = pathlib.Path(__file__).parent / "reference"
DIRECTIVE = re.compile(r"^\.\. auto(?:class|function):: ([\w.]+)$", re.MULTILINE)


def public_objects():
    """List `(name, object, exported)`: exported is what an `__all__` names."""
    found = []
    for name in keras_distill.__all__:
        member = getattr(keras_distill, name)
        if inspect.ismodule(member):
            found += _of_module(member)
        else:
            found.append((f"keras_distill.{name}", member, True))
    return found


def _of_module(module):
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
    """List the objects that the reference pages name."""
    found = []
    for page in sorted(PAGES.glob("*.md")):
        for name in DIRECTIVE.findall(page.read_text("utf-8")):
            module, _, member = name.rpartition(".")
            found.append(getattr(importlib.import_module(module), member))
    return found


def undocumented():
    """List the names of public objects that no reference page has."""
    documented = {id(member) for member in documented_objects()}
    return [
        name for name, member, _ in public_objects() if id(member) not in documented
    ]


if __name__ == "__main__":
    missing = undocumented()
    if missing:
        print(f"Not in {PAGES.name}/*.md, each needs an autodoc directive:")
        print("\n".join(f"  {name}" for name in missing))
        sys.exit(1)
    print(f"All {len(public_objects())} public names are in the reference.")
