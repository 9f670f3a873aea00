"""Who may import whom, and that nothing heavy is imported before it is used."""

import ast
import pathlib
import subprocess
import sys

import pytest

import keras_distill

PACKAGE = pathlib.Path(keras_distill.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LIGHT = {"__future__", "collections", "dataclasses", "keras", "math", "numpy", "re"}
LIGHT |= {"functools", "itertools", "typing"}
MAY_IMPORT = {
    "taps": {"frozen_layers", "gradients", "recording", "taps", "tracing"},
    "frozen_layers": set(),
    "freezing": {"ensembles", "freezing", "frozen_layers", "taps", "teachers"},
    "recording": set(),
    "tracing": set(),
    "gradients": set(),
    "heads": {"taps", "tracing"},
    "chunks": set(),
    "portions": {"chunks", "taps"},
    "teachers": {"heads", "portions", "taps"},
    "ensembles": {"heads", "portions", "taps", "teachers"},
    "adapters": {"adapters", "taps"},
    "losses": {
        "adapters",
        "chunks",
        "heads",
        "losses",
        "noise",
        "strategies",
        "targets",
    },
    "targets": {"noise", "strategies", "targets"},
    "noise": set(),
    "models": {"models"},
    "strategies": {"strategies"},
    "suggestions": {"recording", "taps", "tracing"},
    "views": set(),
    "data": {"data", "views"},
    "cache": {
        "cache",
        "data",
        "distillers",
        "ensembles",
        "heads",
        "losses",
        "strategies",
        "taps",
    }
    | {"teachers", "views"},
    "analysis": {
        "analysis",
        "data",
        "distillers",
        "gradients",
        "losses",
        "recording",
        "taps",
        "tracing",
    },
    "following": {"teachers"},
    "schemes": {
        "adapters",
        "cache",
        "data",
        "distillers",
        "gradients",
        "heads",
        "losses",
        "models",
        "schemes",
        "taps",
        "teachers",
        "tracing",
    },
    "distillers": {
        "distillers",
        "adapters",
        "ensembles",
        "following",
        "gradients",
        "heads",
        "losses",
        "strategies",
        "taps",
        "targets",
        "teachers",
        "tracing",
    },
}


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


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_room_imports_what_it_may(file):
    tree = ast.parse(file.read_text("utf-8"))
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    own = [name.split(".") for name in imports(tree, False) if "keras_distill." in name]
    if room != "__init__":
        assert {parts[1] for parts in own} <= MAY_IMPORT[room]
    tops = {name.split(".")[0] for name in imports(tree, False)} - {"keras_distill"}
    assert not tops & {"tensorflow", "tensorflow_datasets", "sklearn", "matplotlib"}
    assert not tops & {"google_crc32c"}
    if room in (
        "losses",
        "targets",
        "models",
        "adapters",
        "taps",
        "teachers",
        "ensembles",
    ):
        assert tops <= LIGHT | {"contextlib", "difflib", "threading"}
        assert "tensorflow" not in set(imports(tree, True))


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
