"""The package has types: pyright finds no error in code that uses it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parent.parent
PYRIGHT = shutil.which("basedpyright") or shutil.which("pyright")
SNIPPETS = sorted(set(FOLDER.glob("*.py")) - set(FOLDER.glob("*_*.py")))
WRONG = """import keras_distill as kd
from keras_distill.losses.hint import DistillationLoss

distiller: kd.Distiller = kd.Tap("logits")
kd.Term(kd.losses.Hint(), weights=1.0)
kd.data.batches("digits")
"""

pytestmark = pytest.mark.skipif(PYRIGHT is None, reason="pyright is not installed")


def check(files, folder):
    """Return the rule and line of each error that pyright finds in files."""
    settings = {
        "include": [str(file) for file in files],
        "typeCheckingMode": "basic",
        "reportPrivateImportUsage": "error",
    }
    config = folder / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    command = [PYRIGHT, "-p", config, "--pythonpath", sys.executable, "--outputjson"]
    # On the path of the interpreter, the package is one that is installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files)
    return [
        (pathlib.Path(x["file"]).name, x["range"]["start"]["line"], x.get("rule"))
        for x in report["generalDiagnostics"]
        if x["severity"] == "error"
    ]


def test_pyright_accepts_code_that_uses_the_package_and_refuses_wrong_code(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    assert (ROOT / "keras_distill" / "py.typed").exists()
    assert len(SNIPPETS) == 6
    found = check([*SNIPPETS, wrong], tmp_path)
    assert [x for x in found if x[0] != "wrong.py"] == []
    rules = {(line, rule) for _, line, rule in found}
    assert {line for line, _ in rules} == {1, 3, 4, 5}
    assert (1, "reportPrivateImportUsage") in rules
