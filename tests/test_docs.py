"""The documentation covers every public name, and its code runs."""

import importlib.util
import pathlib
import re
import sys

import keras
import pytest

DOCS = pathlib.Path(__file__).parent.parent / "docs"
ROW = re.compile(r"^\| (?!method |---)(.+) \|$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def script(path):
    """Return a script of the docs as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_api():
    return script(DOCS / "check_api.py")


@pytest.fixture
def api_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "check_api", check_api())
    return script(DOCS / "extensions" / "api_names.py")


def test_every_public_name_is_in_the_reference():
    assert check_api().undocumented() == []


def test_a_name_that_is_missing_from_the_reference_is_found(tmp_path, monkeypatch):
    module = check_api()
    for page in module.PAGES.glob("*.md"):
        text = page.read_text("utf-8").replace("   ~keras_distill.Term\n", "")
        (tmp_path / page.name).write_text(text, "utf-8")
    monkeypatch.setattr(module, "PAGES", tmp_path)
    assert module.undocumented() == ["keras_distill.Term"]


def test_every_exported_object_has_an_example():
    for name, member, exported in check_api().public_objects():
        assert member.__doc__, name
        if exported:
            assert "Example:" in member.__doc__, f"{name} has no example"


def test_inline_code_refers_to_a_page_of_the_reference(api_names):
    find = api_names.documented_name
    assert find("kd.Term") == find("keras_distill.Term") == "keras_distill.Term"
    assert find("kd.Term(kd.losses.Hint(), weight=1.0)") == "keras_distill.Term"
    assert find("kd.taps.Tap") == "keras_distill.Tap"
    assert find("kd.Tap.output()") == "keras_distill.Tap.output"
    assert find("SoftTarget", bare_classes=True) == "keras_distill.losses.SoftTarget"
    for code in ("SoftTarget", "kd", "kd.losses", "kd.losses.NoSuch", "keras.Model"):
        assert find(code) is None
    assert find("NoSuch", bare_classes=True) is None


def test_pages_list_methods_of_the_package_alone(api_names):
    methods = api_names.methods()
    assert methods["keras_distill.adapters.Paraphraser"][0] == "call"
    assert "fit" in methods["keras_distill.Distiller"]
    # Written in a base class without a page, and in one that has its own.
    assert "logits" in methods["keras_distill.EnsembleTeacher"]
    assert "adapters" not in methods["keras_distill.losses.Hint"]
    for names in methods.values():
        assert not {"add_weight", "get_config", "on_epoch_end", "build"} & set(names)


def test_every_row_of_the_papers_links_to_the_reference(api_names):
    rows = ROW.findall((DOCS / "papers.md").read_text("utf-8"))
    assert len(rows) > 50
    for row in rows:
        names = re.findall(r"`(kd\.[^`]+)`", row.split(" | ")[2])
        assert names, row
        assert all(map(api_names.documented_name, names)), names


def test_formulas_of_docstrings_are_marked_once(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    mark = script(DOCS / "conf.py").mark_formulas
    typeset = [
        "Mean:",
        "",
        ".. math::",
        "",
        "    a &= b",
        "",
        "    c &= d",
        "",
        "Args:",
    ]
    lines = list(typeset)
    mark(None, "class", "Mean", None, None, lines)
    assert lines == typeset
    lines = ["Mean:", "", "    a = b", "", "Example:", "    >>> mean(x)"]
    mark(None, "class", "Mean", None, None, lines)
    assert lines[2:5] == [".. code-block:: text", "", "    a = b"]
    assert lines.count(".. code-block:: text") == 1


def test_formulas_become_mathml():
    pytest.importorskip("sphinx")
    mathml = script(DOCS / "extensions" / "mathml.py").mathml_of
    lines = mathml("a &= b\n\nc &= d")
    assert lines.count("<mtr>") == 2
    assert lines.count("<mtd>") == 4
    # Bars stretch after \left and \right alone, and an index is the letter's.
    assert "<mtext>‖</mtext>" in mathml(r"\lVert x \rVert_2")
    assert "<mo>‖</mo>" in mathml(r"\left\lVert x \right\rVert_2")
    assert "<msub><mover" in mathml(r"\tilde q_i")


PAGES = [pytest.param("guide/index.md", marks=pytest.mark.long), "adding_a_method.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    blocks = BLOCK.findall((DOCS / page).read_text("utf-8"))
    assert blocks
    names = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
