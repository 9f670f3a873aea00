"""Every example and benchmark runs through: that it runs, not that its method works."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES, BENCHMARKS = ROOT / "examples", ROOT / "benchmarks"
NOTEBOOKS = ROOT / "docs" / "notebooks"
# What a notebook needs beside the package.
NEEDS = {"text_classifier": "keras_hub", "export": "onnxruntime"}
# What runs among the short tests too: a script with the main path.
SHORT = {"quickstart.py"}
# Options that add cells which are left out by default.
OPTIONS = {"beyer2022_patient": ["--mix"]}


def scripts(folder, pattern="*.py"):
    return [
        pytest.param(
            file, id=file.stem, marks=[pytest.mark.long] * (file.name not in SHORT)
        )
        for file in sorted(folder.glob(pattern))
    ]


def run(code, tmp_path, **environment):
    return subprocess.run(
        [sys.executable, *code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        timeout=600,
    )


@pytest.mark.parametrize("script", scripts(EXAMPLES))
def test_smoke(script, tmp_path):
    options = ["--smoke", "--out", str(tmp_path / "out"), *OPTIONS.get(script.stem, ())]
    done = run([str(script), *options], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| -" in done.stdout and any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("script", scripts(BENCHMARKS))
def test_benchmark(script, tmp_path):
    done = run([str(script), "--smoke", "--json", "table.json"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| -" in done.stdout and (tmp_path / "table.json").stat().st_size


@pytest.mark.parametrize("notebook", scripts(NOTEBOOKS, "*.ipynb"))
def test_notebook(notebook, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    needs = NEEDS.get(notebook.stem)
    if needs is not None:
        pytest.importorskip(needs, reason=f"{needs} is not installed")
    monkeypatch.setenv("KERAS_DISTILL_SMOKE", "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    book = nbformat.read(notebook, as_version=4)
    nbformat.validate(book)
    stored = [kinds_of_outputs(cell) for cell in book.cells]
    assert any(stored), "the docs show outputs"
    nbclient.NotebookClient(
        book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [kinds_of_outputs(cell) for cell in book.cells]
    assert all(map(set.issuperset, shown, stored))


def kinds_of_outputs(cell):
    """Return what a cell shows: names of streams, and media types of values."""
    return {
        kind
        for output in cell.get("outputs", ())
        for kind in output.get("data", [output.get("name")])
    }
