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


PAGES = [pytest.param("guide/index.md", marks=pytest.mark.long), "adding_a_method.md"]
PAGES += [pytest.param("guide/report.md", marks=pytest.mark.long)]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    blocks = BLOCK.findall((DOCS / page).read_text("utf-8"))
    assert blocks
    names = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
