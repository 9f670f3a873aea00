"""Agreement, calibration, accuracy by class and the report, against counts by hand."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.analysis.samples import giving, numbered
from tests.formulas import softmax


def test_agreement_is_counted():
    teacher = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0]])
    student = np.array([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [1.5, 0, 0]])
    teacher_net, student_net = giving(teacher, "t"), giving(student, "s")
    found = kd.analysis.agreement(
        student_net, teacher=teacher_net, samples=numbered([0, 1, 2, 1])
    )
    assert found.top == 0.75
    assert found.top_where_wrong == 1.0
    p, q = softmax(teacher), softmax(student)
    assert found.divergence == pytest.approx((p * np.log(p / q)).sum(-1).mean())
    same = kd.analysis.agreement(
        giving(teacher, "s"), teacher=teacher_net, samples=numbered([0, 1, 2, 0])
    )
    assert (same.top, same.divergence) == (1.0, pytest.approx(0.0, abs=1e-12))
    assert np.isnan(same.top_where_wrong)


def test_a_class_that_is_minus_infinite_on_both_sides_adds_nothing():
    """The divergence is that of the other classes; infinite where the student lacks one."""
    teacher = np.array([[2.0, 1, -np.inf], [0, 1, -np.inf]])
    student = np.array([[1.0, 1, -np.inf], [0, 3, -np.inf]])
    of_teacher, labels = giving(teacher, "t"), numbered([0, 1])
    found = kd.analysis.agreement(
        giving(student, "s"), teacher=of_teacher, samples=labels
    )
    p, q = softmax(teacher[:, :2]), softmax(student[:, :2])
    expected = (p * np.log(p / q)).sum(-1).mean()
    assert found.divergence == pytest.approx(expected, rel=1e-6)
    without = giving(np.array([[2.0, -np.inf, 0], [0, 1, -np.inf]]), "w")
    found = kd.analysis.agreement(without, teacher=of_teacher, samples=labels)
    assert found.divergence == np.inf


def test_calibration_is_counted_by_bins():
    p = np.array([0.95, 0.91, 0.85, 0.65, 0.65])
    logits = np.stack([np.log(p / (1 - p)), np.zeros(5)], 1)
    found = kd.analysis.calibration(giving(logits), numbered([0, 1, 0, 0, 1]), bins=10)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 1, 2]
    np.testing.assert_allclose(found.accuracy[[6, 8, 9]], [0.5, 1.0, 0.5])
    np.testing.assert_allclose(
        found.confidence[[6, 8, 9]], [0.65, 0.85, 0.93], atol=1e-6
    )
    expected = (2 * 0.15 + 0.15 + 2 * 0.43) / 5
    assert found.error == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="bins must be an integer of 1 or more"):
        kd.analysis.calibration(giving(logits), numbered([0] * 5), bins=0)


def test_gains_are_counted_by_class(tmp_path):
    labels = numbered([0, 0, 1, 1])
    alone, better = 2.0 * np.eye(3)[[0, 1, 1, 0]], 2.0 * np.eye(3)[[0, 0, 1, 0]]
    models = {"alone": giving(alone, "a"), "better": giving(better, "b")}
    found = kd.analysis.by_class(models, labels)
    np.testing.assert_allclose(found["alone"], [0.5, 0.5, np.nan])
    np.testing.assert_allclose(found["better"], [1.0, 0.5, np.nan])
    pytest.importorskip("matplotlib")
    kd.analysis.plot_by_class(found, against="alone").savefig(tmp_path / "g.png")
    with pytest.raises(ValueError, match="against must be in"):
        kd.analysis.plot_by_class(found, against="worse")


def test_a_report_runs_each_model_once(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    nets = {name: giving(rng.normal(size=(30, 3)), name) for name in ("a", "b")}
    calls = []
    for net in nets.values():
        monkeypatch.setattr(net, "predict", counted(net, calls))
    labels = numbered(rng.integers(0, 3, 30))
    kd.analysis.report({"b": nets["b"]}, nets["a"], labels, file=tmp_path / "r.html")
    assert calls == ["a", "b"]


def counted(net, calls):
    predict = net.predict

    def run(*args, **kwargs):
        calls.append(net.name)
        return predict(*args, **kwargs)

    return run


def test_a_report_is_one_self_contained_file(tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 80)
    right = 3.0 * np.eye(4)[labels]
    nets = {
        name: giving(right + noise * rng.normal(size=right.shape), name)
        for name, noise in (("teacher", 1.0), ("alone", 4.0), ("distilled", 2.0))
    }
    teacher = nets.pop("teacher")
    file = tmp_path / "report.html"
    rows = kd.analysis.report(nets, teacher, numbered(labels), file=file)
    assert [row["model"] for row in rows] == ["teacher", "alone", "distilled"]
    assert rows[0]["agreement %"] == "100.00"
    wrong = kd.analysis.wrong(nets["alone"], numbered(labels)).mean()
    assert rows[1]["accuracy %"] == f"{100 - 100 * wrong:.2f}"
    page = file.read_text("utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page and "<script" not in page
    assert f"<td>{rows[1]['accuracy %']}</td>" in page
    with pytest.raises(ValueError, match="none named 'teacher'"):
        kd.analysis.report({}, teacher, numbered(labels))
    with pytest.raises(TypeError, match="before `teacher`; got Functional"):
        kd.analysis.report(teacher, nets, numbered(labels))


def test_one_logit_is_that_of_two_classes():
    """The larger of 0 and z, with the probability sigmoid(z)."""
    z, other = (
        np.array([[-2.0], [1.0], [3.0], [-0.5]]),
        np.array([[1.0], [2], [1], [-1]]),
    )
    labels = numbered([0, 1, 0, 1])
    nets = [giving(x, name) for x, name in ((z, "s"), (other, "t"))]
    assert kd.analysis.wrong(nets[0], labels).tolist() == [False, False, True, True]
    sure = giving(1 / (1 + np.exp(-z)), "sure")
    assert kd.analysis.wrong(sure, labels).tolist() == [False, False, True, True]
    found = kd.analysis.agreement(nets[0], teacher=nets[1], samples=labels)
    q, p = (1 / (1 + np.exp(-x)) for x in (z, other))
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found.top == 0.75 and found.divergence == pytest.approx(
        each.mean(), rel=1e-5
    )
    as_column = SimpleNamespace(images=labels.images, labels=labels.labels[:, None])
    assert kd.analysis.agreement(nets[0], teacher=nets[1], samples=as_column) == found
    assert kd.analysis.calibration(nets[0], labels).counts.sum() == 4
    with pytest.raises(ValueError, match="'sure' returns probabilities"):
        kd.analysis.calibration(sure, labels)


def ending_in(activation, outputs=1):
    """Return a model of two features, whose outputs are all within 0..1."""
    x = keras.Input((2,))
    last = keras.layers.Dense(
        outputs, activation, kernel_initializer="zeros", bias_initializer="zeros"
    )
    model = keras.Model(x, last(x), name="net")
    last.bias.assign([0.3, 0.7][:outputs])
    return model


def test_the_last_layer_shows_what_values_between_0_and_1_are():
    """The logit 0.3 is the second class with the probability 0.574, 1 / (1 + e^-0.3)."""
    samples = kd.data.Samples(np.zeros((4, 2), "float32"), np.ones(4, "int32"))
    logit, probability = ending_in(None), ending_in("sigmoid")
    assert not kd.analysis.wrong(logit, samples).any()
    assert not kd.analysis.wrong(probability, samples).any()
    found = kd.analysis.calibration(logit, samples)
    assert found.error == pytest.approx(1 - 1 / (1 + np.exp(-0.3)), abs=1e-6)
    with pytest.raises(ValueError, match="'net' returns probabilities"):
        kd.analysis.calibration(probability, samples)


def test_two_logits_may_sum_to_one():
    samples = kd.data.Samples(np.zeros((4, 2), "float32"), np.ones(4, "int32"))
    found = kd.analysis.calibration(ending_in(None, 2), samples)
    assert found.error == pytest.approx(1 - 1 / (1 + np.exp(-0.4)), abs=1e-6)
    for activation in ("softmax", "sigmoid"):
        with pytest.raises(ValueError, match="'net' returns probabilities"):
            kd.analysis.calibration(ending_in(activation, 2), samples)


def test_labels_that_are_no_classes_are_rejected():
    net = giving(np.random.default_rng(0).normal(size=(4, 3)))
    for labels in (np.eye(3)[[0, 1, 2, 0]], np.array([0.5, 1.0, 2.0, 0.1])):
        samples = SimpleNamespace(images=np.arange(4.0)[:, None], labels=labels)
        for measure in (kd.analysis.wrong, kd.analysis.calibration):
            with pytest.raises(ValueError, match="Expected one class per sample"):
                measure(net, samples)


def test_models_without_logits_of_the_same_classes_are_rejected():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20, 3)), numbered(rng.integers(0, 3, 20))
    net, other = giving(logits, "net"), giving(logits, "other")
    with pytest.raises(ValueError, match="'sure' returns probabilities"):
        kd.analysis.calibration(giving(softmax(logits), "sure"), labels)
    one, two = giving(logits[:, :1], "one"), giving(logits[:, :2], "two")
    with pytest.raises(ValueError, match="the same classes"):
        kd.analysis.agreement(one, teacher=net, samples=labels)
    with pytest.raises(ValueError, match="the same classes"):
        kd.analysis.agreement(two, teacher=net, samples=labels)
    with pytest.raises(TypeError, match="positional"):
        kd.analysis.agreement(net, other, labels)
    with pytest.raises(TypeError, match="got EnsembleTeacher"):
        kd.analysis.report({"net": net}, kd.EnsembleTeacher([net, other]), labels)
    with pytest.raises(ValueError, match="one number per sample, \\(N,\\)"):
        kd.data.Samples(labels.images, labels.labels[:, None])


def test_a_report_has_attention_maps_of_models_of_any_input_size(tmp_path):
    pytest.importorskip("matplotlib")
    x = keras.Input((None, None, 1))
    maps = keras.layers.Conv2D(4, 3, name="maps")(x)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    net = keras.Model(x, keras.layers.Dense(10, name="logits")(pooled), name="net")
    few = kd.data.load("digits").test[:40]
    file = tmp_path / "report.html"
    rows = kd.analysis.report({"same": net}, net, few, file=file, tap="maps")
    # For 8x8 images, 6x6 positions of 3x3x4 products, then 4x10.
    assert rows[0]["multiplications"] == 36 * 36 + 40
    page = file.read_text("utf-8")
    assert "Attention maps" in page
    with pytest.raises(ValueError, match="no layer 'mapes'"):
        kd.analysis.report({"same": net}, net, few, file=file, tap="mapes")


def test_agreement_is_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    found = {"student": kd.analysis.Agreement(0.9, 0.1, 0.5)}
    figure = kd.analysis.plot_agreement(found)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.9, 0.5]
