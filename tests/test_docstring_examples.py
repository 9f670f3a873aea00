"""The examples in docstrings run, and return what stands below them.

They run in a folder of their own, with the names in `tests/example_names.py`.
"""

import contextlib
import doctest
import inspect
import io
import os
import pathlib

import pytest
import tensorflow as tf

from tests.example_names import example_names
from tests.test_docs import check_api

TEXT = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "")) / "tiny_shakespeare"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# These take about a second or more.
LONG = {
    *("BackupAndRestore", "CachedTeacher", "Distiller.set_teacher", "GivenTeacher"),
    *("MutualDistiller", "ParaphraserStage", "SelfDistiller", "adapters.Paraphraser"),
    *("analysis.pixel_entropies", "analysis.report", "data.Characters"),
    *("callbacks.Pulls", "callbacks.Pulls.plot"),
    *("fit_generations", "fit_specialists", "fit_stages"),
    *("losses.FactorTransfer", "recasting_stages", "reconstruct"),
    *("reuse_teacher_head", "strategies.scope"),
}
# Of many steps, or on replicas, which need a compiled step.
COMPILED = {"analysis.pixel_entropies", "strategies.scope"}


def examples():
    """Return the docstrings with an example, by the name of the object or method."""
    found = {}
    for name, member, _ in check_api().public_objects():
        name = name.removeprefix("keras_distill.")
        methods = vars(member) if inspect.isclass(member) else ()
        for path in [name, *(f"{name}.{key}" for key in methods if key[0] != "_")]:
            owner = member if path == name else getattr(member, path.rpartition(".")[2])
            docstring = inspect.getdoc(owner) or ""
            # A class may have two names, and the members of an enumeration its docstring.
            if ">>>" in docstring and docstring not in found.values():
                found[path] = docstring
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def names():
    return example_names()


@pytest.fixture
def eager():
    """Compile nothing, which would take longer than the few steps of an example."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.long] * (x in LONG)) for x in EXAMPLES]
)
def test_the_example_runs(name, names, tmp_path, monkeypatch, request):
    if "load_characters" in EXAMPLES[name] and not TEXT.exists():
        pytest.skip("tiny_shakespeare is not in TFDS_DATA_DIR")
    if name not in COMPILED:
        request.getfixturevalue("eager")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example", **names}
    for example in doctest.DocTestParser().get_examples(EXAMPLES[name]):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(example.source, name, "single"), names)
        if example.want:
            check(example, output.getvalue())


def check(example, output):
    agrees = doctest.OutputChecker().check_output(example.want, output, FLAGS)
    assert agrees, f"{example.source}expected\n{example.want}got\n{output}"


def test_only_examples_are_marked():
    assert set(EXAMPLES) >= LONG | COMPILED
