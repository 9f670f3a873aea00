"""The documentation covers every public name, and its code runs."""

import importlib.util
import pathlib
import re
import sys

import keras
import pytest

from tests.page_setups import SETUPS

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


def test_notebooks_open_in_a_browser():
    module = script(DOCS / "extensions" / "browser_notebooks.py")
    found = module.address_of("notebooks/tour", "owner/name")
    assert found.endswith("/owner/name/blob/main/docs/notebooks/tour.ipynb")
    for page, repository in (("notebooks/index", "a/b"), ("start", "a/b")):
        assert module.address_of(page, repository) is None
    assert module.address_of("notebooks/tour", "") is None


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


# A target in general has no formula.
WITHOUT_FORMULA = {"keras_distill.targets.Target"}


def test_every_loss_and_target_has_a_formula():
    missing = {
        name
        for name, member, _ in check_api().public_objects()
        if name.startswith(("keras_distill.losses.", "keras_distill.targets."))
        and ".. math::\n" not in member.__doc__
    }
    assert missing == WITHOUT_FORMULA


# The names that the other pages go on with come from this one.
START = "start.md"
# What a page needs beside the package.
NEEDS = {"guide/tuning.md": "keras_tuner", "guide/keras_hub.md": "keras_hub"}
# The page whose code another test runs, with what it prints.
TRACKERS = "guide/trackers.md"
# The page with a whole module of its own, which is a short test.
ALONE = "adding_a_method.md"
# Of what the code needs and a test has not: a TPU, and other processes.
SKETCHES = 'scope("tpu")', "kd.RemotePeers("


def sections_of(page):
    """Return the headings of a page with the blocks of code under each."""
    parts = re.split(r"^#+ (.+)$", (DOCS / page).read_text("utf-8"), flags=re.MULTILINE)
    return [(title, BLOCK.findall(text)) for title, text in _pairs(parts[1:])]


def _pairs(items):
    return zip(items[::2], items[1::2], strict=True)


def pages():
    names = sorted(
        str(file.relative_to(DOCS))
        for file in DOCS.rglob("*.md")
        if not {"_build", "api"} & set(file.parts)
    )
    return [name for name in names if any(code for _, code in sections_of(name))]


def run_page(page, names, tmp_path):
    setups = dict(SETUPS.get(page, {}))
    for title, blocks in sections_of(page):
        if title in setups:
            names.update(setups.pop(title)(tmp_path))
        for block in blocks:
            code = compile(block, f"{page}: {title}", "exec")
            if not any(sketch in block for sketch in SKETCHES):
                exec(code, names)
    assert not setups, "these headings are not on the page"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return the names of the start page, after its code has run."""
    names = {"__name__": "page", "ops": keras.ops}
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        keras.utils.set_random_seed(0)
        run_page(START, names, folder)
    return names


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] * (page != ALONE))
        for page in pages()
        if page not in (START, TRACKERS)
    ],
)
def test_the_code_of_a_page_runs(page, request, tmp_path, monkeypatch):
    if page in NEEDS:
        pytest.importorskip(NEEDS[page], reason=f"{NEEDS[page]} is not installed")
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    names = {} if page == ALONE else request.getfixturevalue("start")
    run_page(page, {"__name__": "page", **names}, tmp_path)


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
    teacher, distilled, alone = (
        int(rows[name][0]) for name in ("teacher", "student distilled", "student alone")
    )
    assert teacher < distilled < alone


def test_the_page_of_trackers_shows_what_is_printed_and_logged(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / TRACKERS).read_text("utf-8")
    names, logged = {"__name__": "page"}, []
    for block in BLOCK.findall(text):
        exec(compile(block, TRACKERS, "exec"), names)
    printed = capsys.readouterr().out
    for block in re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        assert block in printed

    class Tracker:
        log_params = staticmethod(logged.append)
        log_metrics = staticmethod(lambda metrics, step: logged.append(metrics))

    callback = names["LogToMLflow"](Tracker)
    data = names["images"], names["labels"]
    names["distiller"].fit(*data, callbacks=[callback], verbose=0)
    params, metrics = logged
    assert params["soft_target.temperature"] == 4.0
    assert {"loss", "soft_target", "soft_target_weight", "accuracy"} <= set(metrics)
