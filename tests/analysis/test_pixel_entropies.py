"""Pixel entropies against their closed form for linear models; points by hand."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.analysis.pixel_entropies import UNIT_ENTROPY


def linear(kernel):
    """Return a model of 4x4x1 images whose layer is a matrix product."""
    x = keras.Input((4, 4, 1))
    flat = keras.layers.Flatten()(x)
    layer = keras.layers.Dense(kernel.shape[1], name="layer")
    net = keras.Model(x, layer(flat))
    layer.kernel.assign(kernel)
    return net


def test_a_linear_layers_entropies_have_a_closed_form():
    """sigma_i = sqrt(bound * variance / n) / |w_i|: cells contribute equally."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(16, 5)) * rng.uniform(0.2, 4.0, (16, 1))
    images = rng.normal(size=(6, 4, 4, 1)).astype("float32")
    outputs = images.reshape(6, 16) @ kernel
    variance = outputs.var(0).sum()
    found = kd.analysis.pixel_entropies(
        linear(kernel), images, "layer", bound=0.1, grid=4, steps=250, draws=16
    )
    norms = np.linalg.norm(kernel, axis=1).reshape(4, 4)
    expected = np.sqrt(0.1 * variance / 16) / norms
    np.testing.assert_allclose(
        np.log(found.sigma), np.broadcast_to(np.log(expected), (6, 4, 4)), atol=0.5
    )
    assert np.abs(np.log(found.sigma).mean(0) - np.log(expected)).max() < 0.15
    np.testing.assert_allclose(found.change, 0.1, rtol=0.3)
    np.testing.assert_allclose(
        found.entropies, np.log(found.sigma) + 0.5 * np.log(2 * np.pi * np.e)
    )


@pytest.mark.long
def test_cells_share_their_sigma():
    """In cells of four pixels, the change is the sum over the four."""
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(16, 5)) * rng.uniform(0.2, 4.0, (16, 1))
    images = rng.normal(size=(4, 4, 4, 1)).astype("float32")
    found = kd.analysis.pixel_entropies(
        linear(kernel), images, "layer", grid=2, steps=250, draws=16
    )
    squares = (kernel**2).sum(1).reshape(2, 2, 2, 2).sum((1, 3))
    variance = (images.reshape(4, 16) @ kernel).var(0).sum()
    expected = np.log(np.sqrt(0.1 * variance / 4 / squares))
    assert np.abs(np.log(found.sigma).mean(0) - expected).max() < 0.15


def test_the_bound_holds_for_a_nonlinear_model():
    keras.utils.set_random_seed(0)
    net = kd.models.conv_net((8, 8, 1), 3, filters=(4, 6))
    images = kd.data.load("digits").train.images[:10]
    found = kd.analysis.pixel_entropies(
        net, images, "stack1", grid=8, steps=40, bound=0.2, batch_size=4
    )
    assert found.sigma.shape == (10, 8, 8)
    np.testing.assert_allclose(found.change, 0.2, rtol=0.4)
    assert len(net.trainable_variables) == 8, "the model is unchanged"


@pytest.mark.long
def test_sigma_is_at_most_the_range_of_the_images():
    """A pixel whose kernel row is zero would tolerate any noise."""
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(16, 5))
    kernel[3] = 0.0
    images = rng.uniform(size=(4, 4, 4, 1)).astype("float32")
    for steps in (60, 150):
        found = kd.analysis.pixel_entropies(
            linear(kernel), images, "layer", grid=4, steps=steps, draws=8
        )
        # The last search scales all noise by one factor.
        fraction = found.sigma[:, 0, 3] / np.ptp(images)
        assert fraction.max() <= 1.0001 and fraction.min() > 0.7
        assert np.delete(found.sigma.reshape(4, 16), 3, 1).max() < 0.5


@pytest.mark.long
def test_large_values_in_half_precision():
    images = kd.data.load("digits").train.images[:4]
    kinds = {}
    for policy in ("float32", "mixed_float16"):
        x = keras.Input((8, 8, 1))
        keras.utils.set_random_seed(0)
        layer = keras.layers.Conv2D(64, 3, name="maps", dtype=policy)
        net = keras.Model(x, keras.layers.Flatten()(layer(x)))
        layer.kernel.assign(60.0 * layer.kernel)
        kinds[policy] = kd.analysis.pixel_entropies(
            net, images, "maps", grid=8, steps=20, draws=4
        ).entropies
    np.testing.assert_allclose(*kinds.values(), atol=0.05)


def test_bad_input_is_rejected():
    net = linear(np.ones((16, 2)))
    images = np.zeros((3, 4, 4, 1), "float32")
    with pytest.raises(ValueError, match="`grid` to divide"):
        kd.analysis.pixel_entropies(net, images, "layer", grid=3)
    with pytest.raises(ValueError, match="is the same for all 3"):
        kd.analysis.pixel_entropies(net, images, "layer", grid=4)
    with pytest.raises(ValueError, match="no layer 'lair'"):
        kd.analysis.pixel_entropies(net, images, "lair", grid=4)


def entropies():
    """Return the entropies of two images of 2x2 cells."""
    return np.array([[[0.2, 1.0], [1.5, 0.5]], [[0.0, 0.7], [1.3, 1.0]]])


MASKS = np.array([[[1, 0], [0, 0]], [[1, 1], [0, 0]]], bool)


def test_points_are_cells_well_below_the_background():
    found = kd.analysis.knowledge_points(entropies(), MASKS, margin=0.25)
    # Background means: (1 + 1.5 + 0.5) / 3 = 1 and (1.3 + 1) / 2 = 1.15.
    assert found.points.tolist() == [
        [[True, False], [False, True]],
        [[True, True], [False, False]],
    ]
    assert found.on_foreground.tolist() == [1, 2]
    assert found.on_background.tolist() == [1, 0]
    assert found.foreground_fraction == pytest.approx((0.5 + 1.0) / 2)
    fine = np.kron(MASKS, np.ones((1, 3, 3))) > 0
    again = kd.analysis.knowledge_points(entropies(), fine, margin=0.25)
    np.testing.assert_array_equal(again.points, found.points)
    with pytest.raises(ValueError, match="have none"):
        kd.analysis.knowledge_points(entropies(), np.ones((2, 2, 2), bool))
    with pytest.raises(ValueError, match="whole cells"):
        kd.analysis.knowledge_points(entropies(), np.ones((2, 3, 3), bool))


def test_learning_is_measured_over_checkpoints():
    masks = np.array([[[1, 1], [0, 0]]] * 3, bool)

    def at(*cells):
        """Return points on cells of the first row: (image, column)."""
        points = np.zeros((3, 2, 2), bool)
        for image, column in cells:
            points[image, 0, column] = True
        on_foreground = points.sum((1, 2))
        return kd.analysis.KnowledgePoints(points, on_foreground, np.zeros(3, int))

    # The first image has most points at the second checkpoint, the second at the third;
    # the third image never has a point.
    found = [at((0, 0)), at((0, 0), (0, 1)), at((0, 1), (1, 0))]
    weights = [[np.array([3.0, 4.0])], [np.array([3.0, 5.0])], [np.array([3.0, 7.0])]]
    weights.append([np.array([0.0, 7.0])])
    learning = kd.analysis.learning_of_points(found, masks, weights)
    assert learning.stability == pytest.approx((1 / 2 + 1) / 2)
    paths = [(1 + 2) / 5, (1 + 2 + 3) / 5]
    assert learning.mean_distance == pytest.approx(np.mean(paths))
    assert learning.variance == pytest.approx(np.var(paths))
    assert learning.on_foreground.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    with pytest.raises(ValueError, match="before the training and at each"):
        kd.analysis.learning_of_points(found, masks, weights[1:])
    nothing = kd.analysis.learning_of_points([at()], masks, weights[:2])
    assert np.isnan(nothing.mean_distance) and np.isnan(nothing.variance)


def test_they_are_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    images = kd.data.load("digits").train.images[:2]
    found = kd.analysis.knowledge_points(entropies(), MASKS)
    figure = kd.analysis.plot_knowledge_points(images, entropies(), found)
    figure.savefig(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 3000
    assert pytest.approx(1.4189385) == UNIT_ENTROPY
    learning = kd.analysis.Learning(0.5, 1.0, 0.1, np.array([1.0, 2.0]))
    lines = kd.analysis.plot_learning({"student": learning}).axes[0].lines
    assert lines[0].get_ydata().tolist() == [1.0, 2.0]
