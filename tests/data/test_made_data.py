"""Related classes, digits on textured backgrounds, and characters."""

import os

import numpy as np
import pytest

import keras_distill as kd


def related(similarity=0.6, difficulty=2, **arguments):
    sizes = {"features": 40, "classes": 12, "super_classes": 4, **arguments}
    return kd.data.RelatedClasses(similarity, difficulty, **sizes)


@pytest.mark.parametrize("similarity", [0.0, 0.6, 0.9999])
def test_classes_have_the_chosen_similarity(similarity):
    """w = tau c + sqrt(1 - tau^2) u, c orthonormal, u orthogonal to all c."""
    data = related(similarity)
    w = data.class_vectors.astype("float64")
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), 1.0, atol=1e-6)
    between = w @ w.T
    group = np.repeat(np.arange(4), 3)
    same = (group[:, None] == group) & ~np.eye(12, dtype=bool)
    # Random offsets have cosines of about 0.16, the root of 1 / 40.
    assert between[same].mean() == pytest.approx(similarity**2, abs=0.12)
    apart = between[group[:, None] != group]
    assert apart.mean() == pytest.approx(0.0, abs=0.05)
    bound = 1e-6 + 0.55 * (1.0 - similarity**2)
    assert np.abs(apart).max() < bound


def test_super_classes_are_orthogonal_and_none_has_identical_classes():
    w = related(1.0, classes=4).class_vectors.astype("float64")
    np.testing.assert_allclose(w @ w.T, np.eye(4), atol=1e-6)
    similar = related(0.6)
    directions = related(1.0, classes=4).class_vectors
    cosines = similar.class_vectors @ directions.T
    np.testing.assert_allclose(cosines.max(1), 0.6, atol=1e-5)
    with pytest.raises(ValueError, match="identical"):
        related(1.0)


def test_labels_are_those_of_the_formula():
    data = related()
    points = np.random.default_rng(0).normal(size=(50, 40)).astype("float32")
    products = points @ data.class_vectors.T
    scores = products + np.sin(products) + np.sin(2 * products + 1)
    np.testing.assert_array_equal(data.labels(points), scores.argmax(-1))
    linear = related(difficulty=0)
    np.testing.assert_array_equal(linear.labels(points), products.argmax(-1))


def test_blocks_depend_on_their_index_alone():
    data, again = related(), related()
    first = data.samples("train", 300, block_size=100)
    x, y = again.block("train", 2, 100)
    np.testing.assert_array_equal(first.images[200:], x)
    np.testing.assert_array_equal(first.labels[200:], y)
    other = data.samples("validation", 100, block_size=100)
    assert np.abs(other.images - first.images[:100]).max() > 1.0
    assert set(first.labels) == set(range(12))


def test_batches_are_the_same_points_in_each_epoch():
    batches = related().batches("train", 450, 100)
    epochs = []
    for _ in range(2):
        epochs.append([batches[i][0] for i in range(len(batches))])
        batches.on_epoch_end()
    assert len(batches) == 4
    keys = [[float(x[0, 0]) for x in epoch] for epoch in epochs]
    assert keys[0] != keys[1] and sorted(keys[0]) == sorted(keys[1])
    again = related().batches("train", 450, 100)
    assert [float(again[i][0][0, 0]) for i in range(4)] == keys[0]


def test_a_distiller_trains_on_batches_as_they_are_drawn():
    data = related()
    teacher, student = (kd.models.mlp((40,), 12, units=(n,)) for n in (16, 8))
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    distiller.compile("adam")
    history = distiller.fit(
        data.batches("train", 1000, 50), epochs=3, verbose=0
    ).history
    assert history["soft_target"][-1] < history["soft_target"][0]


def test_digits_lie_where_the_mask_says():
    samples = kd.data.load("digits").train[:60]
    found, masks = kd.data.textured_digits(samples, seed=1)
    assert found.images.shape == (60, 32, 32, 3) and masks.shape == (60, 32, 32)
    assert found.images.min() >= 0.0 and found.images.max() <= 1.0
    again, _ = kd.data.textured_digits(samples, seed=1)
    np.testing.assert_array_equal(found.images, again.images)
    bold = samples.images[..., 0] > 0.5
    np.testing.assert_array_equal(masks.sum((1, 2)), 4 * bold.sum((1, 2)))
    pairs = list(zip(found.images, masks, strict=True))
    ink = np.array([image[mask].mean() for image, mask in pairs])
    background = np.array([image[~mask].mean() for image, mask in pairs])
    assert np.abs(ink - background).min() > 0.1
    corners = [np.argwhere(mask).min(0) for mask in masks]
    assert np.std(corners, axis=0).min() > 3.0


def test_bad_arguments():
    for arguments, message in (
        ({"similarity": 1.5}, "similarity is a cosine"),
        ({"difficulty": -1}, "difficulty must be an integer of 0 or more; got -1"),
        ({"classes": 10}, "multiple of super_classes"),
    ):
        with pytest.raises(ValueError, match=message):
            related(**arguments)
    with pytest.raises(ValueError, match="split is one of"):
        related().samples("training", 10)
    with pytest.raises(ValueError, match="at least one batch"):
        related().batches("train", 10, 20)
    with pytest.raises(ValueError, match="at least 16 pixels"):
        kd.data.textured_digits(size=8)


@pytest.mark.skipif(
    not os.path.isdir(
        os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "tiny_shakespeare")
    ),
    reason="tiny_shakespeare is not in TFDS_DATA_DIR",
)
def test_windows_are_followed_by_their_next_characters():
    text = kd.data.load_characters()
    assert len(text.alphabet) == 65
    x, y = text.windows("validation", 50)
    np.testing.assert_array_equal(x.ravel()[1:], y.ravel()[:-1])
    assert text.decode(x[0]) == text.decode(text.validation[:50])
    with pytest.raises(ValueError, match="do not fit"):
        text.windows("test", 10**6)


def test_an_unknown_text_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="could not be loaded"):
        kd.data.load_characters("no_such_text", data_dir=str(tmp_path))
