"""The documentation covers every public name, and its code runs."""

import importlib.util
import pathlib
import re

import keras
import pytest

DOCS = pathlib.Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def check_api():
    spec = importlib.util.spec_from_file_location("check_api", DOCS / "check_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_reference():
    assert check_api().undocumented() == []


def test_every_exported_object_has_an_example():
    for name, member, exported in check_api().public_objects():
        assert member.__doc__, name
        if exported:
            assert "Example:" in member.__doc__, f"{name} has no example"


# The names that the other pages go on with come from this one.
START = "start.md"
# What a page needs beside the test extra's own.
NEEDS = {"guide/tuning.md": "keras_tuner"}
# Pages whose models are downloaded, or are the reader's own.
SKETCHES = {"distribution.md", "guide/keras_hub.md", "guide/your_model.md"}


def blocks_of(page):
    return BLOCK.findall((DOCS / page).read_text("utf-8"))


def pages():
    names = sorted(
        str(file.relative_to(DOCS))
        for file in DOCS.rglob("*.md")
        if "_build" not in file.parts and "api" not in file.parts
    )
    return [name for name in names if blocks_of(name) and name not in SKETCHES]


def run_blocks(page, names):
    for block in blocks_of(page):
        exec(compile(block, page, "exec"), names)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return the names of the start page, after its code has run."""
    names = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("start"))
        keras.utils.set_random_seed(0)
        run_blocks(START, names)
    return names


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] * (page != "adding_a_method.md"))
        for page in pages()
        if page != START
    ],
)
def test_the_code_of_a_page_runs(page, start, tmp_path, monkeypatch):
    if page in NEEDS:
        pytest.importorskip(NEEDS[page], reason=f"{NEEDS[page]} is not installed")
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    run_blocks(page, dict(start))


@pytest.mark.parametrize("page", sorted(SKETCHES))
def test_sketches_compile(page):
    for block in blocks_of(page):
        compile(block, page, "exec")


@pytest.mark.long
def test_the_code_of_the_readme_runs_as_pasted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    for block in BLOCK.findall(readme):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    table = capsys.readouterr().out
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:4] for line in table.splitlines()
    }
    shown = re.findall(
        r"^\| (teacher|student \w+) +\| +(\d+) \| +([\d,]+) \|", readme, re.M
    )
    assert len(shown) == 3
    for name, errors, weights in shown:
        assert int(rows[name][0]) == pytest.approx(int(errors), abs=5)
        assert rows[name][1].strip() == weights
