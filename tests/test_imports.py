"""Which room may import which, and that nothing heavy is imported before it is used."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

import keras_distill

PACKAGE = pathlib.Path(keras_distill.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LIGHT = {
    "collections",
    "contextlib",
    "dataclasses",
    "difflib",
    "functools",
    "itertools",
}
LIGHT |= {"keras", "math", "numbers", "numpy", "re", "threading", "typing", "weakref"}
# Rooms below; every room may import itself. In the order of the floor plan.
MAY_IMPORT = {
    "_backend": set(),
    "models": {"_backend"},
    "optimizers": {"_backend"},
    "strategies": set(),
    "taps": {"_backend"},
    "data": {"_backend", "taps"},
    "adapters": {"_backend", "taps"},
    "targets": {"_backend", "strategies"},
    "teachers": {"_backend", "data", "strategies", "taps"},
    "losses": {"_backend", "adapters", "strategies", "taps", "targets"},
    "training": {"_backend", "strategies"},
    "distillers": {"_backend", "adapters", "data", "losses", "strategies", "taps"}
    | {"targets", "teachers", "training"},
    "schemes": {"_backend", "adapters", "data", "distillers", "losses", "taps"}
    | {"teachers", "training"},
    "analysis": {"_backend", "adapters", "data", "distillers", "losses", "taps"},
    "callbacks": {"_backend", "analysis", "distillers"},
}
# Their losses, adapters and models run on every backend.
PORTABLE = {"adapters", "losses", "models", "taps", "targets"}


def imports(tree, nested):
    """List imported modules, those inside functions or those outside."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if (id(node) in inside) != nested:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "keras_distill":
                yield from (f"keras_distill.{alias.name}" for alias in node.names)


def rooms(names):
    """Return the rooms among imported modules."""
    parts = [name.split(".") for name in names]
    return {x[1] for x in parts if x[0] == "keras_distill" and len(x) > 1}


def test_no_loose_module_lies_at_the_root():
    assert [file.name for file in PACKAGE.glob("*.py")] == ["__init__.py"]
    folders = {file.relative_to(PACKAGE).parts[0] for file in FILES} - {"__init__.py"}
    assert folders == set(MAY_IMPORT)


def test_no_room_is_above_itself():
    order = list(graphlib.TopologicalSorter(MAY_IMPORT).static_order())
    assert order.index("teachers") < order.index("distillers") < order.index("schemes")


def test_no_two_files_have_one_name():
    names = [file.name for file in FILES if file.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_room_imports_what_it_may(file):
    tree = ast.parse(file.read_text("utf-8"))
    room = file.relative_to(PACKAGE).parts[0]
    everywhere = [*imports(tree, False), *imports(tree, True)]
    if room != "__init__.py":
        assert rooms(everywhere) <= MAY_IMPORT[room] | {room}
    tops = {name.split(".")[0] for name in imports(tree, False)} - {"keras_distill"}
    assert not tops & {"tensorflow", "tensorflow_datasets", "sklearn", "matplotlib"}
    assert not tops & {"google_crc32c"}
    if room in PORTABLE:
        assert tops <= LIGHT
        assert not {"tensorflow", "jax", "torch"} & set(imports(tree, True))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_no_assert_in_the_package(file):
    tree = ast.parse(file.read_text("utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def test_the_import_brings_in_nothing_heavy():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_distill; "
        "print(*(set(sys.modules) - before))"
    )
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "keras_distill.losses.hint" in modules
    assert not {"tensorflow_datasets", "sklearn", "matplotlib"} & set(modules)
