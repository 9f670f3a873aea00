"""The report: numbers counted by hand, and a page that is small, offline and readable."""

import base64
import io
import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.analysis.report import curves, thumbnails
from keras_distill.analysis.report.gains import sorted_gains
from tests.analysis.samples import giving, numbered
from tests.backends.bare import Without

# Teacher and student of two classes on labels 0, 0, 1, 1, 0, by the logit of class 1:
# right where its sign is that of the label.
TEACHER = np.array([-2.0, -1.0, 3.0, -0.5, -4.0])
STUDENT = np.array([1.0, 0.5, 2.0, 1.5, -1.0])
LABELS = [0, 0, 1, 1, 0]


def two_classes(logits, name):
    return giving(np.stack([0.0 * logits, logits], 1), name)


def write(tmp_path, *args, **kwargs):
    pytest.importorskip("matplotlib")
    file = tmp_path / "report.html"
    rows = kd.analysis.report(*args, file=file, repeats=0, **kwargs)
    return rows, file.read_text("utf-8")


def some_models(names=("teacher", "alone", "distilled"), classes=4, count=60):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count)
    right = 3.0 * np.eye(classes)[labels]
    models = {
        name: giving(right + (1 + i) * rng.normal(size=right.shape), name)
        for i, name in enumerate(names)
    }
    return models.pop("teacher"), models, numbered(labels)


def test_won_and_lost_are_counted_and_sorted():
    student, teacher = two_classes(STUDENT, "s"), two_classes(TEACHER, "t")
    found = kd.analysis.won_and_lost(student, teacher=teacher, samples=numbered(LABELS))
    # Probabilities of label 0: sigmoid(-z). Lost by 0.88 - 0.27 and by 0.73 - 0.38.
    assert found.lost.tolist() == [0, 1]
    assert found.won.tolist() == [3]
    swapped = kd.analysis.won_and_lost(
        teacher, teacher=student, samples=numbered(LABELS)
    )
    assert swapped.won.tolist() == [0, 1] and swapped.lost.tolist() == [3]


def test_gains_are_sorted_without_classes_that_have_no_samples():
    gains = np.array([1.0, -3.0, np.nan, 5.0, 1.0])
    assert sorted_gains(gains).tolist() == [3, 0, 4, 1]


def test_the_page_lists_gains_from_the_largest_to_the_smallest(tmp_path):
    labels = np.repeat([0, 1, 2], 4)
    alone = np.array([0, 0, 0, 0, 1, 1, 1, 0, 2, 2, 0, 0])
    better = np.array([0, 0, 0, 1, 1, 1, 1, 0, 2, 2, 2, 2])
    models = {"alone": alone, "better": better}
    models = {name: giving(np.eye(3)[x] * 5.0, name) for name, x in models.items()}
    teacher = giving(np.eye(3)[labels] * 5.0, "teacher")
    names = ["ant", "bee", "cat"]
    _, page = write(tmp_path, models, teacher, numbered(labels), names=names)
    cells = re.findall(
        r"<th scope='row'>(\w+)</th><td>4</td>.*?<td>([+-][\d.]+)</td>", page
    )
    assert cells == [("cat", "+50.00"), ("bee", "+0.00"), ("ant", "-25.00")]
    assert 'aria-label="cat: +50.00; bee: +0.00; ant: -25.00"' in page
    with pytest.raises(ValueError, match="a name for each of the 3 classes; got 2"):
        write(tmp_path, models, teacher, numbered(labels), names=names[:2])


def test_one_student_is_compared_with_the_teacher(tmp_path):
    teacher, models, samples = some_models(("teacher", "student"))
    _, page = write(tmp_path, models, teacher, samples)
    assert "student over teacher, percentage points" in page


class Page(HTMLParser):
    """Collects headings, links and alternative texts, and checks that tags match."""

    void = frozenset({"meta", "br", "img", "path", "use", "image", "rect", "stop"})

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.links, self.ids, self.texts = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in self.void:
            self.open.append(tag)
        if tag == "a":
            self.links.append(attributes["href"])
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag in ("svg", "img"):
            self.texts.append(attributes.get("aria-label") or attributes.get("alt"))

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


HISTORY = {
    "loss": [2.0, 1.0],
    "val_loss": [2.1, 1.1],
    "soft_target": [0.5, 0.25],
    "pull/soft_target": [3.0, 2.0],
    "cosine/soft_target": [0.5, -0.1],
}


def test_a_page_has_all_sections_and_an_alternative_text_for_each_figure(tmp_path):
    teacher, models, samples = some_models()
    rows, text = write(
        tmp_path,
        models,
        teacher,
        samples,
        histories={"distilled": HISTORY},
        comparison=[
            {"method": "teacher", "mean": "97.00"},
            {"method": "KD <1>", "mean": "95.00", "std": "0.50", "step": "1.10"},
        ],
    )
    page = Page(text)
    assert page.headings == [
        "A teacher and its students",
        "Summary",
        "Accuracy and cost",
        "Training curves",
        "Pull of each part",
        "Comparison of methods",
        "Gains by class",
        "Calibration",
        "Samples lost and won",
        "Class correlation",
    ]
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert all(page.texts)
    assert "soft_target, distilled: from 0.5 to 0.25" in page.texts
    assert "pull/soft_target: from 3 to 2" in page.texts
    assert "teacher: 97 ± 0; KD &lt;1&gt;: 95 ± 0.5" in text
    assert f"<td>{rows[1]['accuracy %']}</td>" in text


def test_a_page_is_offline_and_follows_the_color_scheme(tmp_path):
    teacher, models, samples = some_models()
    arguments = {"students": models, "teacher": teacher, "data": samples}
    arguments["histories"] = {"alone": HISTORY}
    _, page = write(tmp_path, **arguments)
    assert "http" not in page and "//" not in re.sub(r"base64,[\s\w+/=]+", "", page)
    assert "<script" not in page and "@import" not in page
    assert "prefers-color-scheme: dark" in page and "width=device-width" in page
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    # Each color is a variable, which has two values.
    assert "var(--series-0)" in drawn and "var(--text)" in drawn
    assert not re.search(r"(fill|stroke): #", drawn)
    # Nothing of the page depends on when it is written.
    assert write(tmp_path, **arguments)[1] == page


def test_a_page_of_many_classes_large_images_and_students_is_below_2_mb(tmp_path):
    rng = np.random.default_rng(0)
    count, classes = 300, 150
    images = rng.integers(0, 255, (count, 112, 112, 3), dtype="uint8")
    images[:, 0, 0, 0], images[:, 0, 0, 1] = (
        np.arange(count) % 250,
        np.arange(count) // 250,
    )
    labels = rng.integers(0, classes, count)
    students = {f"student {i}": pixel_model(rng, count, classes) for i in range(4)}
    teacher = pixel_model(rng, count, classes)
    epochs = {
        "loss": rng.random(5000),
        "hint": rng.random(5000),
        "kd": rng.random(5000),
    }
    _, page = write(
        tmp_path,
        students,
        teacher,
        kd.data.Samples(images, labels.astype("int32")),
        histories=dict.fromkeys(students, epochs),
    )
    assert 500_000 < len(page.encode("utf-8")) < 2_000_000


class ByPixel(keras.layers.Layer):
    """Logits that are drawn for each sample, whose number is in its first pixel."""

    def __init__(self, table):
        super().__init__()
        self.table = keras.Variable(table, trainable=False)

    def call(self, x):
        first = keras.ops.cast(x[:, 0, 0], "int32")
        return keras.ops.take(self.table, first[:, 0] + 250 * first[:, 1], axis=0)


def pixel_model(rng, count, classes):
    table = rng.normal(size=(count, classes)).astype("float32")
    inputs = keras.Input((112, 112, 3))
    return keras.Model(inputs, ByPixel(table)(inputs))


def test_samples_are_thumbnails_of_what_the_models_got(tmp_path):
    digits = kd.data.load("digits")
    samples = digits.test[:40]
    rng = np.random.default_rng(0)
    wrong = samples.labels.copy()
    wrong[[3, 7]] = (wrong[[3, 7]] + 1) % 10
    nets = [kd.models.mlp((8, 8, 1), 10, units=(4,)) for _ in range(2)]
    logits = [
        5.0 * np.eye(10)[x] + 0.1 * rng.normal(size=(40, 10))
        for x in (samples.labels, wrong)
    ]
    for net, z in zip(nets, logits, strict=True):
        net.predict = lambda *args, z=z, **kwargs: z
    _, page = write(tmp_path, {"student": nets[1]}, nets[0], samples)
    cards = re.findall(r"<img alt='label (\d), .*? sample (\d+)' src='([^']*)'", page)
    assert {int(number) for _, number, _ in cards} == set(samples.ids[[3, 7]].tolist())
    assert "student lost: 2 samples" in page and "student won: 0 samples" in page
    matplotlib = pytest.importorskip("matplotlib.image")
    for label, number, source in cards:
        (i,) = np.flatnonzero(samples.ids == int(number))
        assert int(label) == samples.labels[i]
        png = base64.b64decode(source.partition("base64,")[2])
        image = matplotlib.imread(io.BytesIO(png), format="png")
        np.testing.assert_allclose(
            image[..., 0], samples.images[i, ..., 0], atol=1 / 250
        )


def test_inputs_that_are_no_images_are_shown_as_text(tmp_path):
    student, teacher = two_classes(STUDENT, "s"), two_classes(TEACHER, "t")
    arguments = {"student": student}, teacher, numbered(LABELS)
    _, page = write(tmp_path, *arguments, as_text=lambda x: f"word <{x[0]:.0f}>")
    assert page.count("word &lt;") == 3 and "word &lt;3&gt;" in page
    _, page = write(tmp_path, *arguments, names=["no", "yes"])
    assert (
        "<th scope='row'>0</th><td>no</td><td>no (88%)</td><td>yes (73%)</td>" in page
    )


def test_without_labels_students_are_compared_with_the_teacher(tmp_path):
    student, teacher = two_classes(STUDENT, "s"), two_classes(TEACHER, "t")
    images = numbered(LABELS).images
    for data in (
        SimpleNamespace(images=images),
        SimpleNamespace(images=images, labels=None),
    ):
        rows, page = write(tmp_path, {"student": student}, teacher, data)
        assert rows[1]["agreement %"] == "40.00" and "accuracy %" not in rows[1]
        assert "student differs: 3 samples" in page and "Calibration" not in page


def test_latency_is_measured_unless_repeats_is_0():
    teacher, models, samples = some_models()
    rows = kd.analysis.report(models, teacher, samples, repeats=2)
    assert all(float(row["ms per sample"]) > 0 for row in rows)
    assert (
        "ms per sample"
        not in kd.analysis.report(models, teacher, samples, repeats=0)[0]
    )


def test_models_with_a_preprocessor_are_counted_on_what_it_returns(tmp_path):
    """As keras_hub's tasks, whose `predict` takes texts."""
    models = {}
    for name, logits in (("teacher", TEACHER), ("student", STUDENT)):
        x = keras.Input((4,))
        net = keras.Model(x, keras.layers.Dense(2)(x), name=name)
        net.preprocess_samples = lambda x: np.zeros((len(x), 4), "float32")
        z = np.stack([0.0 * logits, logits], 1)
        net.predict = lambda *args, z=z, **kwargs: z
        models[name] = net
    pytest.importorskip("matplotlib")
    texts = np.array([f"text {i}" for i in range(5)])
    data = SimpleNamespace(images=texts, labels=LABELS)
    teacher, file = models.pop("teacher"), tmp_path / "report.html"
    rows = kd.analysis.report(models, teacher, data, file=file)
    assert [row["multiplications"] for row in rows] == [8, 8]
    # It would be the time of the preprocessor too.
    assert "ms per sample" not in rows[0]
    page = file.read_text("utf-8")
    assert all(f"<td>text {i}</td>" in page for i in (0, 1, 3))
    assert "<td>text 2</td>" not in page


def test_histories_of_stages_follow_each_other():
    stages = [
        {"hint": [3.0, 2.0]},
        SimpleNamespace(history={"loss": [1.0], "hint": [0.5]}),
    ]
    found = curves.as_curves("student", stages)
    np.testing.assert_array_equal(found["hint"], [3.0, 2.0, 0.5])
    np.testing.assert_array_equal(found["loss"], [np.nan, np.nan, 1.0])
    for wrong in ([1.0, 2.0], {"loss": 1.0}, [], keras.callbacks.Callback()):
        with pytest.raises(
            TypeError, match=r"histories\['student'\] to be the history"
        ):
            curves.as_curves("student", wrong)
    with pytest.raises(
        TypeError, match=r"pulls\['student'\] to be a kd.callbacks.Pulls"
    ):
        curves.as_pulls("student", HISTORY)


def test_pulls_are_drawn_by_step(tmp_path):
    teacher, models, samples = some_models()
    pulls = SimpleNamespace(
        history=[{"step": 10, "pull/hint": 4.0}, {"step": 20, "pull/hint": 8.0}]
    )
    _, page = write(tmp_path, models, teacher, samples, pulls={"distilled": pulls})
    assert 'aria-label="pull/hint: from 4 to 8"' in page and ">step<" in page


def test_a_comparison_of_other_rows_is_rejected(tmp_path):
    teacher, models, samples = some_models()
    with pytest.raises(ValueError, match=r"the rows that kd.analysis.compare returns"):
        write(tmp_path, models, teacher, samples, comparison=[{"model": "a"}])


@pytest.mark.parametrize(
    "images, expected",
    [
        (np.zeros((2, 8, 8), "uint8"), (0, 255)),
        (np.full((2, 8, 8, 1), 0.5), (0, 1)),
        (np.linspace(0, 200, 2 * 64).reshape(2, 8, 8, 1), (0, 255)),
        (np.linspace(-2, 2, 2 * 192).reshape(2, 3, 8, 8), (-2, 2)),
        (np.zeros((2, 8, 8)), None),
        (np.zeros((2, 8, 8, 7)), None),
        (np.zeros((2, 5)), None),
        (np.array(["a", "b"]), None),
    ],
)
def test_images_and_their_values_are_recognized(images, expected):
    assert thumbnails.are_images(images) == (expected is not None)
    if expected is not None:
        assert thumbnails.value_range(images) == pytest.approx(expected)


def test_large_images_are_averaged():
    image = np.arange(64.0).reshape(8, 8, 1)
    small = thumbnails.shrunk(image, 4)
    expected = [
        [image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(4)]
        for i in range(4)
    ]
    np.testing.assert_allclose(small[..., 0], expected)
    assert thumbnails.shrunk(np.zeros((224, 100, 3))).shape == (56, 25, 3)


@pytest.mark.parametrize("package", ["matplotlib", "scipy"])
def test_without_a_package_of_figures_no_model_runs(package, tmp_path, monkeypatch):
    hidden = [Without(finder, {package}) for finder in sys.meta_path]
    monkeypatch.setattr(sys, "meta_path", hidden)
    for name in [x for x in sys.modules if x.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    teacher, student = (two_classes(x, "net") for x in (TEACHER, STUDENT))
    monkeypatch.setattr(
        teacher, "predict", lambda *args, **kwargs: pytest.fail("it ran")
    )
    data = numbered(LABELS)
    with pytest.raises(ImportError, match=r'pip install "keras-distill\[plot\]"'):
        kd.analysis.report({"student": student}, teacher, data, file=tmp_path / "page")
