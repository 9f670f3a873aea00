"""The board: cells that go on where they were killed, its page, and the GPU's form."""

import importlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_distill as kd

BOARD = pathlib.Path(__file__).parent.parent / "benchmarks" / "board"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def board(monkeypatch):
    """Return the board's modules by name, which import each other as a script's do."""
    monkeypatch.syspath_prepend(str(BOARD))
    names = (
        *("cells", "methods", "pairs", "reference_torch", "training", "run", "table"),
        *("claims", "claim_pages"),
    )
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda name: importlib.import_module(name)
    for name in names:
        sys.modules.pop(name, None)


def images(count=300):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 32, 32, 3)).astype("float32")
    samples = kd.data.Samples(x, rng.integers(0, 10, count).astype("int32"))
    return kd.data.ImageSet("random", samples, samples[:50], 10)


def small_pair(pairs, **settings):
    net = pairs.Net("small", "resnet", {"depth": 8, "width": 2})
    wide = pairs.Net("wide", "resnet", {"depth": 8, "width": 4})
    return pairs.Pair(wide, net, **{"images": 256, "epochs": 2, **settings})


@pytest.mark.long
def test_every_row_has_balanced_terms_on_each_pair(board):
    methods, pairs, run = board("methods"), board("pairs"), board("run")
    main, *_ = pairs.PAIRS
    rows, samples = {main: methods.METHODS, **run.OTHER}, images().train
    for name, pair in pairs.PAIRS.items():
        models = pair.student.build(0), pair.teacher.build(0)
        for method in rows[name]:
            row = methods.row_of(method, pair, models, samples)
            assert bool(row.terms) == (method != "alone")
            # Where the student has a classifier of its own, it learns from labels too.
            assert (row.student is models[0]) == (row.label_weight == 1.0)
            if row.label_weight:
                assert {term.weight for term in row.terms} <= {"balanced"}
            kd.Distiller(row.student, models[1], terms=row.terms, sample_ids=1)
            assert row.optimizer(1, 256).nesterov


def test_the_queue_begins_with_the_rows_that_others_are_compared_with(board):
    queue = board("run").queue()
    assert len(set(queue)) == len(queue)
    first = [(cell.method, cell.seed) for cell in queue[:9]]
    rows = "alone", "KD", "AT"
    assert first == [(row, seed) for row in rows for seed in range(3)]


@pytest.mark.long
@pytest.mark.parametrize("method", ["alone", "KD", "CRD"])
def test_a_cell_that_is_killed_goes_on(board, method, tmp_path, monkeypatch):
    training, cells, pairs = board("training"), board("cells"), board("pairs")
    pair, data = small_pair(pairs), images()
    teacher = pair.teacher.build(0)
    cell = cells.Cell(method, "small", 0)
    arguments = cell, pair, teacher, data

    class Kill(training.Progress):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt
            super().on_epoch_begin(epoch, logs)

    training.run_cell(*arguments, tmp_path / "whole", tmp_path / "a")
    whole = cell.read(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(training, "Progress", Kill)
        with pytest.raises(KeyboardInterrupt):
            training.run_cell(*arguments, tmp_path / "cut", tmp_path / "b")
    assert not cell.is_done(tmp_path / "cut")
    training.run_cell(*arguments, tmp_path / "cut", tmp_path / "b")
    again = cell.read(tmp_path / "cut")
    assert len(again["history"]["loss"]) == pair.epochs
    assert again["history"]["loss"][0] == whole["history"]["loss"][0]
    if method != "alone":
        assert again["weights"] == whole["weights"]
        assert again["balanced"] == whole["balanced"]


def test_the_page_says_how_many_seeds_each_row_has(board, tmp_path, monkeypatch):
    cells, table = board("cells"), board("table")
    for method, pair, values in (
        ("alone", "pair", [50.0, 52.0]),
        ("KD", "pair", [60.0]),
        ("teacher", "pair", [70.0]),
        ("alone", "pair-torch", [51.5]),
    ):
        for seed, value in enumerate(values):
            cells.Cell(method, pair, seed).write(
                tmp_path, accuracy=value, settings={"images": 10, "epochs": 1}
            )
    page = tmp_path / "board.md"
    monkeypatch.setattr(
        sys, "argv", ["table.py", "--cells", str(tmp_path), "--page", str(page)]
    )
    table.main()
    text = page.read_text("utf-8")
    lines = [line.split("|")[1:-1] for line in text.splitlines() if "|" in line]
    rows = [[x.strip() for x in line] for line in lines]
    assert ["KD", "60.00", "1", "", ""] in rows
    assert ["alone", "51.00 ± 1.00", "2", "51.50", "1"] in rows
    assert ["pair", "70.00"] in rows
    assert "## pair\n" in text and "## pair-torch" not in text


@pytest.fixture
def protocols(board):
    yield board("claims").PROTOCOLS
    for name in [name for name in sys.modules if name.partition(".")[0] == "claims"]:
        sys.modules.pop(name)


@pytest.mark.parametrize(
    "better, worse, no_loss, verdict",
    [
        ([3.0, 5.0], [1.0, 1.0], False, "shows"),
        ([3.0, 5.0], [3.0, 3.1], False, "does not"),  # 0.95 apart, deviation 1
        ([3.0, 5.0], [4.5, 4.5], True, "shows"),
        ([3.0, 5.0], [5.5, 5.5], True, "does not"),
        ([3.0], [1.0, 1.0], False, "not tried"),
    ],
)
def test_a_claim_shows_by_more_than_a_deviation(
    protocols, better, worse, no_loss, verdict
):
    claim = importlib.import_module("claims.protocol").Claim
    rows = {"a": better, "b": worse}
    assert claim("", "a", "b", "x", no_loss=no_loss).verdict(rows, 2) == verdict
    minus = {name: [-x for x in values] for name, values in rows.items()}
    smaller = claim("", "a", "b", "x", larger=False, no_loss=no_loss)
    assert smaller.verdict(minus, 2) == verdict


def test_claims_compare_rows_of_their_protocols(protocols):
    for name, protocol in protocols.items():
        assert name == protocol.name
        for claim in protocol.claims:
            assert {claim.better, claim.worse} <= set(protocol.rows)


def test_a_page_keeps_what_others_wrote(board, protocols):
    pages, protocol = board("claim_pages"), next(iter(protocols.values()))
    cell = {"seed": 0, "machine": "m", "method": protocol.rows[0]}
    first = pages.page_of(protocol, [], "")
    assert first.startswith(f"# {protocol.title}") and "not tried" in first
    old = f"before\n{first.partition('# ')[2]}after"
    page = pages.page_of(protocol, [{**cell, "measures": {"accuracy": 12.345}}], old)
    assert page.startswith("before") and page.endswith("after")
    assert "12.3" in page and page.count(protocol.about) == 1


def test_pictures_of_some_cells_and_of_all(protocols, tmp_path):
    pytest.importorskip("matplotlib")
    for name, protocol in protocols.items():
        if protocol.plot:
            names = "accuracy", "teacher's accuracy"
            cells = [
                {"seed": 0, "method": row, "measures": dict.fromkeys(names, 1.0)}
                for row in protocol.rows
            ]
            for found in (cells[:1], cells):
                protocol.plot(found, tmp_path / f"{name}{len(found)}.png")
                assert (tmp_path / f"{name}{len(found)}.png").stat().st_size


def test_variation_of_gradients_is_that_of_single_steps(protocols):
    module, rng = importlib.import_module("claims.hinton2015_gradients"), np.random
    model = kd.models.mlp((5,), 3, units=(4, 6))
    x, y = rng.default_rng(0).normal(size=(7, 5)).astype("float32"), np.arange(7) % 3
    logits, start = model.predict(x, verbose=0), model.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss)
    gradients = []
    for i in range(len(x)):
        model.set_weights(start)
        model.train_on_batch(x[i : i + 1], y[i : i + 1])
        steps = [a - b for a, b in zip(start, model.get_weights(), strict=True)]
        gradients.append(np.concatenate([step.ravel() for step in steps]))
    model.set_weights(start)
    expected = np.var(gradients, 0).sum() / (np.mean(gradients, 0) ** 2).sum()
    found = module.variation(model, x, module.slopes_of(logits, y, None))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_images_without_labels_count_in_the_distillation_loss_alone(protocols):
    training, rng = importlib.import_module("claims.training"), np.random
    x = rng.default_rng(0).normal(size=(6, 4)).astype("float32")
    labels = np.array([2, -1, -1, 0, -1, -1], "int32")
    logits = 3.0 * rng.default_rng(1).normal(size=(6, 3)).astype("float32")
    loss, known = training.cross_entropy_of_labelled, labels >= 0
    rows = np.log(np.exp(logits.astype("float64")).sum(1, keepdims=True))
    expected = (rows - logits)[known, labels[known]].mean()
    found = keras.ops.mean(loss(labels[:, None], logits))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert float(keras.ops.mean(loss(0 * labels - 1, logits))) == 0.0
    # A linear student of four inputs can learn six logits of a linear teacher exactly,
    # from two images it could not.
    target = x @ rng.default_rng(2).normal(size=(4, 3)).astype("float32")
    student = kd.models.mlp((4,), 3, units=())
    settings = kd.losses.LogitRegression(), 6, 60, 0
    samples = kd.data.Samples(x, labels)
    training.fit_to_logits(student, samples, target, *settings, rate=0.3)
    np.testing.assert_allclose(student.predict(x, verbose=0), target, atol=0.2)


def test_a_setting_is_chosen_once(protocols, tmp_path):
    module, scored = importlib.import_module("claims.partial_targets"), []

    def score(name, settings):
        scored.append(name)
        return -abs(settings[name] - 2)

    candidates = {"KD": (1.0, 2.0, 4.0), "KD-topk": (5, 2)}
    for _ in range(2):
        file = tmp_path / "settings" / "chosen.json"
        found = module.chosen("KD-topk", candidates, score, file)
        assert found == {"KD": 2.0, "KD-topk": 2}
    assert scored == 3 * ["KD"] + 2 * ["KD-topk"]


def test_pairs_are_of_the_two_digits(protocols):
    module = importlib.import_module("claims.class_relations")
    digits = np.arange(10, dtype="int32")
    images = np.broadcast_to(digits[:, None, None, None], (10, 28, 28, 1))
    samples = module.pairs(kd.data.Samples(images, digits), 50, 0, noise=0.0)
    assert samples.images.shape == (50, 14, 28, 1)
    first, second = (samples.images[:, 7, column, 0] for column in (7, 21))
    np.testing.assert_array_equal(samples.labels, 10 * first + second)


def test_a_teacher_generates_what_it_predicts(protocols):
    example = importlib.import_module("kim2016_sequences")
    teacher = example.net(0, 12, 8, "teacher")
    for weight in teacher.get_layer("logits").weights:
        weight.assign(10 * np.random.default_rng(0).normal(size=weight.shape))
    lines = example.generated_by(teacher, 3, 0, temperature=1e-4)
    logits = teacher.predict(lines[:, :-1], verbose=0)
    inside = (lines[:, :-1] > example.PAD) & (lines[:, 1:] > example.PAD)
    assert inside.sum() > 3
    np.testing.assert_array_equal(
        lines[:, 1:][inside], 1 + logits[..., 1:].argmax(-1)[inside]
    )


# Of each kind one: perceptrons, relations of digits, stages on images.
@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["hinton2015_speech", "tang2020_pairs", "romero2015_fitnets"]
)
def test_a_protocol_runs(protocols, name, tmp_path, monkeypatch):
    module = importlib.import_module(f"claims.{name}")
    for constant, value in module.SMOKE.items():
        monkeypatch.setattr(module, constant, value)
    protocol = module.PROTOCOL
    assert protocols[protocol.name] is protocol
    # The last row is the one that takes most: a teacher, and a student of it.
    found = protocol.train(protocol.rows[-1], 0, tmp_path)
    measures = {claim.measure for claim in protocol.claims}
    assert measures & set(found) and np.isfinite(list(found.values())).all()


def test_smoke_settings_are_constants_of_the_module(protocols):
    for protocol in protocols.values():
        module = sys.modules[protocol.train.__module__]
        assert module.SMOKE and set(module.SMOKE) <= set(vars(module))


@pytest.mark.long
def test_the_gpu_form_runs_on_a_cpu(tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    data = images(260)
    scaled = np.clip(64 * data.train.images + 128, 0, 255).astype("uint8")
    arrays = {"x": scaled, "y": data.train.labels}
    files = {
        f"{k}_{split}": v for split in ("train", "test") for k, v in arrays.items()
    }
    np.savez(tmp_path / "data.npz", **files)
    done = subprocess.run(
        [
            *(sys.executable, str(BOARD / "gpu.py"), "--smoke", "--out", str(tmp_path)),
            *("--data", str(tmp_path / "data.npz"), "--methods", "alone,KD+AT,CRD"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(x.read_text()) for x in sorted(tmp_path.glob("*.json"))]
    assert {x["method"] for x in found} == {"teacher", "alone", "KD+AT", "CRD"}
    for cell in found:
        assert all(np.isfinite(cell["history"]["loss"])) and cell["weights"]


@pytest.mark.long
def test_the_reference_in_torch_runs_on_the_boards_teacher(tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    rng, arrays = np.random.default_rng(0), {}
    for split in ("train", "test"):
        arrays[f"x_{split}"] = rng.integers(0, 255, (256, 32, 32, 3), "uint8")
        arrays[f"y_{split}"] = rng.integers(0, 10, 256)
    np.savez(tmp_path / "data.npz", **arrays)
    shutil.copy(BOARD / "cells" / "resnet20.weights.h5", tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, str(BOARD / "reference_torch.py"), "--seeds", "1"),
            *("--data", str(tmp_path / "data.npz"), "--out", str(tmp_path)),
            *("--images", "256", "--epochs", "1"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(x.read_text()) for x in tmp_path.glob("*.json")]
    assert {x["method"]: len(x["balanced"]) for x in found} == {
        "alone": 0,
        "KD": 1,
        "AT": 3,
    }


@pytest.mark.long
def test_the_reference_has_the_boards_network(board, tmp_path):
    """Its logits and maps are those of the same weights in Keras."""
    torch = pytest.importorskip("torch")
    reference, pairs = board("reference_torch"), board("pairs")
    teacher = pairs.RESNET20.build(0)
    teacher.load_weights(BOARD / "cells" / "resnet20.weights.h5")
    images = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), "uint8")
    x = reference.normalized(images)
    plain = reference.load_teacher(BOARD / "cells" / "resnet20.weights.h5")
    with torch.no_grad():
        logits, maps = plain(x)
    channels_last = x.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(logits, teacher(channels_last), atol=1e-4)
    stage = pairs.keras.Model(teacher.input, teacher.get_layer("stack3").output)
    found = maps[-1].numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, stage(channels_last), atol=1e-4)
