"""Gradient rescaling against the formula, which is exact for two classes."""

import numpy as np
import pytest

import keras_distill as kd
from tests.analysis.samples import giving, numbered
from tests.formulas import softmax


def pair(classes, count=60, seed=0):
    rng = np.random.default_rng(seed)
    student, teacher = 2.0 * rng.normal(size=(2, count, classes)).astype("float32")
    return student, teacher, rng.integers(0, classes, count)


def rescaling(student, teacher, labels, **arguments):
    nets = giving(student, "student"), giving(teacher, "teacher")
    return kd.analysis.gradient_rescaling(*nets, numbered(labels), **arguments)


def proposition(student, teacher, labels, temperature, weight):
    index = np.arange(len(labels)), labels
    q = softmax(student)[index]
    gap = softmax(teacher, temperature)[index] - softmax(student, temperature)[index]
    return 1.0 - weight + weight * temperature * gap / (1.0 - q)


def test_with_two_classes_the_ratio_is_the_same_at_each_logit():
    student, teacher, labels = pair(2)
    found = rescaling(student, teacher, labels, temperature=3.0, soft_weight=0.7)
    expected = proposition(student, teacher, labels, 3.0, 0.7)
    expected = np.stack([expected] * 2, 1)
    np.testing.assert_allclose(found.by_logit, expected, rtol=1e-3, atol=2e-3)
    assert found.label_fraction == pytest.approx(0.5, abs=1e-5)


def test_the_proposition_holds_at_the_true_class():
    student, teacher, labels = pair(5)
    found = rescaling(student, teacher, labels, temperature=4.0, soft_weight=0.9)
    expected = proposition(student, teacher, labels, 4.0, 0.9)
    np.testing.assert_allclose(found.by_sample, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.predicted, expected, rtol=1e-6)
    # The ratio differs at each of the other logits.
    assert np.nanstd(found.by_logit - found.by_sample[:, None]) > 0.1


def test_parts_are_those_of_the_soft_targets_gradient():
    student, teacher, labels = pair(4)
    found = rescaling(student, teacher, labels, temperature=2.0)
    gradient = 2.0 * (softmax(student, 2.0) - softmax(teacher, 2.0))
    index = np.arange(len(labels)), labels
    np.testing.assert_allclose(found.label_part, gradient[index], atol=1e-5)
    gradient[index] = 0.0
    np.testing.assert_allclose(
        found.wrong_part, np.linalg.norm(gradient, axis=1), atol=1e-5
    )
    assert found.importance.sum() == pytest.approx(1.0)


def test_the_ratio_grows_with_the_teachers_confidence():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    teacher = np.eye(3)[labels] * rng.uniform(0.0, 8.0, (200, 1))
    found = rescaling(np.zeros((200, 3)), teacher, labels)
    assert found.correlation > 0.99 and found.slope > 0.0


def test_a_confident_student_has_no_ratio():
    """Without a gradient of the labels there is nothing to rescale."""
    student = np.array([[80.0, 0.0], [0.5, 0.0]])
    found = rescaling(student, np.zeros((2, 2)), [0, 0])
    assert np.isnan(found.by_sample).tolist() == [True, False]


def test_bad_input_is_rejected():
    student, teacher, labels = pair(3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        rescaling(student, teacher, labels, soft_weight=1.5)
    with pytest.raises(ValueError, match="same classes"):
        rescaling(student, teacher[:, :2], labels)


def test_it_is_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    figure = kd.analysis.plot_gradient_rescaling(rescaling(*pair(4)))
    figure.savefig(tmp_path / "g.png")
    assert (tmp_path / "g.png").stat().st_size > 10_000
