"""What is optional: the package works without it, and errors name the extra to install."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import keras_distill
from keras_distill._backend import optional
from tests import processes

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# Those whose name on the index differs from that of the module.
NAMES = {"sklearn": "scikit-learn", "tensorflow_datasets": "tensorflow-datasets"}
ERRORS = {
    "data.batches": "tensorflow",
    "data.Views": "tensorflow",
    "data.load": "data",
    "data.load digits": "data",
    "cluster_classes": "data",
    "plots": "plot",
}


def requirements(extra):
    lines = PROJECT["optional-dependencies"][extra]
    return {re.split(r"[<>=]", line)[0] for line in lines}


@pytest.mark.parametrize("package", optional.EXTRAS)
def test_the_named_extra_installs_the_package(package):
    name = NAMES.get(package, package)
    assert name in requirements(optional.EXTRAS[package])
    assert name not in {re.split(r"[<>=]", x)[0] for x in PROJECT["dependencies"]}


@pytest.mark.parametrize(
    "backend", ["jax", pytest.param("torch", marks=pytest.mark.long)]
)
def test_a_backend_alone_suffices(backend, tmp_path):
    printed = processes.run("tests.backends.bare", backend, tmp_path)
    lines = [line.split(": ", 1) for line in printed.splitlines() if ": " in line]
    errors = {name: message for name, message in lines if name in ERRORS}
    for name, extra in ERRORS.items():
        assert f'pip install "keras-distill[{extra}]"' in errors[name]


def import_without(packages, tmp_path, **environment):
    code = (
        "from tests.backends.bare import hide\n"
        f"hide({packages})\n"
        "import keras_distill\n"
    )
    kept = {name: x for name, x in os.environ.items() if name != "KERAS_BACKEND"}
    kept |= {"PYTHONPATH": str(ROOT), "KERAS_HOME": str(tmp_path), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=kept
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_the_import_without_a_backend_names_the_extras(tmp_path):
    error = import_without(["tensorflow", "jax", "torch"], tmp_path)
    assert error == (
        "ImportError: tensorflow, the backend that Keras is set to, is not installed: "
        'pip install "keras-distill[tensorflow]"; or install keras-distill[jax] or '
        "keras-distill[torch] and set KERAS_BACKEND to its backend."
    )


def test_the_import_without_the_backend_of_the_environment_names_it(tmp_path):
    error = import_without(["jax"], tmp_path, KERAS_BACKEND="jax")
    assert error == (
        "ImportError: jax, which KERAS_BACKEND names, is not installed: pip install "
        '"keras-distill[jax]", or set KERAS_BACKEND=tensorflow, which is installed.'
    )


def test_the_citation_has_the_version_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {keras_distill.__version__}\n" in citation


def test_a_broken_package_keeps_its_own_error(monkeypatch):
    monkeypatch.setattr(
        optional.importlib,
        "import_module",
        lambda name: (_ for _ in ()).throw(ModuleNotFoundError("x", name="other")),
    )
    with pytest.raises(ModuleNotFoundError, match=r"^x$"):
        optional.require("sklearn.cluster", "kd.cluster_classes")
