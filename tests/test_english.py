"""What would read as translated does not come back into docstrings and errors."""

import ast
import pathlib
import re

import pytest

import keras_distill

PACKAGE = pathlib.Path(keras_distill.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
OPENINGS = re.compile(r"(Give|Tell|Say|Let|Know|Refuse|Ask)\b")
WORDS = re.compile(
    r"can't be had|\bis told\b|\bare told\b|is asked (for|to)|\bslopes\b|normalis|"
    r"optimis|regularis|\bwhat (it|they) (gives?|knows?|is given)\b|Tell whether",
    re.IGNORECASE,
)
# What Keras calls or documents; a docstring would only repeat it.
OVERRIDES = {"get_config", "from_config", "compute_output_shape", "build"}
OVERRIDES |= {"get_build_config", "build_from_config", "call", "compute_loss"}


def definitions(file):
    tree = ast.parse(file.read_text("utf-8"))
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def texts(file):
    """List the string constants of a file, docstrings and errors among them."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_docstrings_and_errors_are_plain_english(file):
    openings = [
        (node.lineno, ast.get_docstring(node).split("\n")[0])
        for node in definitions(file)
        if not isinstance(node, ast.Module)
        and OPENINGS.match(ast.get_docstring(node) or "")
    ]
    assert openings == []
    words = [
        (line, WORDS.search(text).group())
        for text, line in texts(file)
        if WORDS.search(text)
    ]
    assert words == []


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_public_methods_have_docstrings(file):
    missing = [
        f"{cls.name}.{node.name}"
        for cls in definitions(file)
        if isinstance(cls, ast.ClassDef) and not cls.name.startswith("_")
        for node in cls.body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and node.name not in OVERRIDES
        and not ast.get_docstring(node)
    ]
    assert missing == []
