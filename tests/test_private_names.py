"""Only `_backend` names what Keras, TensorFlow, JAX and torch keep private."""

import ast
import importlib
import inspect
import pathlib

import pytest

import keras_distill

PACKAGE = pathlib.Path(keras_distill.__file__).parent
FILES = sorted(
    file
    for file in PACKAGE.rglob("*.py")
    if file.relative_to(PACKAGE).parts[0] != "_backend"
)
FOREIGN = ("keras", "tensorflow", "jax", "torch")
PRIVATE_MODULES = ("keras.src", "tensorflow.python", "jax._src", "torch._")


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def own_names():
    """List the private names that the package itself defines or assigns."""
    names = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return {name for name in names if is_private(name)}


OWN = own_names()


def foreign_names(cls):
    """List the private names of a class's foreign bases, those of instances included."""
    names = set()
    for base in cls.__mro__:
        if base.__module__.split(".")[0] not in FOREIGN:
            continue
        names |= {name for name in vars(base) if is_private(name)}
        try:
            tree = ast.parse(inspect.cleandoc("if True:\n" + inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names |= {node.attr} if is_private(node.attr) else set()
    return names


def uses(tree):
    """List `(name, line)` of private attributes, of methods and of string arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr, node.lineno
        is_getattr = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if is_getattr and node.func.id in ("getattr", "setattr", "hasattr"):
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant) and is_private(argument.value):
                    yield argument.value, node.lineno


def private_imports(tree):
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.startswith(PRIVATE_MODULES))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_no_private_name_of_others_outside_of_backend(file):
    tree = ast.parse(file.read_text("utf-8"))
    assert list(private_imports(tree)) == []
    unknown = [(name, line) for name, line in uses(tree) if name not in OWN]
    assert unknown == []


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_no_class_uses_or_overrides_a_private_name_of_its_bases(file):
    path = file.relative_to(PACKAGE.parent).with_suffix("")
    parts = [part for part in path.parts if part != "__init__"]
    module = importlib.import_module(".".join(parts))
    for node in ast.parse(file.read_text("utf-8")).body:
        cls = getattr(module, getattr(node, "name", ""), None)
        if not isinstance(node, ast.ClassDef) or not inspect.isclass(cls):
            continue
        defined = [
            (x.name, x.lineno) for x in node.body if isinstance(x, ast.FunctionDef)
        ]
        named = [
            (name, line) for name, line in [*defined, *uses(node)] if is_private(name)
        ]
        foreign = foreign_names(cls)
        assert [(name, line) for name, line in named if name in foreign] == []
