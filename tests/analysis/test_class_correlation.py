"""Class correlation against NumPy, its limits, and synthetic classes in groups."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.analysis.samples import giving, numbered
from tests.formulas import softmax


def draws(count=200, classes=6, seed=0):
    return np.random.default_rng(seed).normal(size=(count, classes)) * 3.0


def test_it_is_pearsons_correlation_of_softened_predictions():
    logits = draws().astype("float32")
    samples = numbered(np.zeros(200))
    found = kd.analysis.class_correlation(giving(logits), samples, (1.0, 5.0))
    for one, T in zip(found, (1.0, 5.0), strict=True):
        expected = np.corrcoef(softmax(logits, T), rowvar=False)
        np.testing.assert_allclose(one.matrix, expected, atol=1e-9)
        assert sorted(one.order) == list(range(6))


def test_a_high_temperature_leaves_centered_logits():
    logits = draws().astype("float32")
    samples = numbered(np.zeros(200))
    (found,) = kd.analysis.class_correlation(giving(logits), samples, [1e4])
    centered = logits - logits.mean(1, keepdims=True)
    expected = np.corrcoef(centered.astype("float64"), rowvar=False)
    np.testing.assert_allclose(found.matrix, expected, atol=1e-3)


def test_a_high_temperature_shows_the_super_classes():
    """With linear logits on related classes, the blocks are the groups."""
    data = kd.data.RelatedClasses(0.9, 0, features=40, classes=12, super_classes=4)
    points = data.samples("train", 2000)
    logits = 30.0 * points.images @ data.class_vectors.T
    samples = numbered(points.labels)
    cold, hot = kd.analysis.class_correlation(
        giving(logits), samples, (1.0, 60.0), groups=data.groups
    )
    assert hot.blocks > 0.5 and hot.blocks > cold.blocks + 0.2
    (clustered,) = kd.analysis.class_correlation(
        giving(logits), samples, [60.0], clusters=4
    )
    assert sorted(map(sorted, clustered.groups)) == data.groups


def test_blocks_compare_pairs_within_and_between_groups():
    matrix = np.array([[1.0, 0.8, 0.1], [0.8, 1.0, 0.3], [0.1, 0.3, 1.0]])
    found = kd.analysis.ClassCorrelation(matrix, [[0, 1], [2]], "by hand")
    assert found.blocks == pytest.approx(0.8 - 0.2)
    alone = kd.analysis.ClassCorrelation(matrix, [[0, 1, 2]], "one group")
    assert np.isnan(alone.blocks)


def test_weights_are_compared_by_their_cosine():
    keras.utils.set_random_seed(0)
    net = kd.models.mlp((5,), 4, units=(7,))
    kernel = np.array(net.get_layer("logits").kernel, "float64")
    found = kd.analysis.weight_similarity(net, groups=[[0, 1], [2, 3]])
    expected = [
        [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in kernel.T]
        for a in kernel.T
    ]
    np.testing.assert_allclose(found.matrix, expected, atol=1e-6)


def test_an_unlikely_class_has_a_correlation_too():
    logits = draws()
    logits[:, 5] -= 40.0
    logits = logits.astype("float32")
    (found,) = kd.analysis.class_correlation(
        giving(logits), numbered(np.zeros(200)), [1.0]
    )
    expected = np.corrcoef(softmax(logits), rowvar=False)
    np.testing.assert_allclose(found.matrix, expected, atol=1e-6)


def test_a_uniform_teacher_has_no_correlation():
    samples = numbered(np.zeros(50))
    with pytest.raises(ValueError, match="correlation is undefined"):
        kd.analysis.class_correlation(giving(np.zeros((50, 3))), samples)


def test_bad_input_is_rejected():
    teacher, samples = giving(draws()), numbered(np.zeros(200))
    with pytest.raises(ValueError, match=r"temperatures\[0\] must be above 0"):
        kd.analysis.class_correlation(teacher, samples, [0.0])
    with pytest.raises(ValueError, match="each of the 6 classes once"):
        kd.analysis.class_correlation(teacher, samples, groups=[[0, 1], [2]])
    with pytest.raises(ValueError, match="ends in a Given"):
        kd.analysis.weight_similarity(teacher)


def test_it_is_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    found = kd.analysis.class_correlation(giving(draws()), numbered(np.zeros(200)))
    kd.analysis.plot_class_correlation(found, names=list("abcdef")).savefig(
        tmp_path / "c.png"
    )
    assert (tmp_path / "c.png").stat().st_size > 10_000
