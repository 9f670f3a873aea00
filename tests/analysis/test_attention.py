"""Attention maps against NumPy."""

import keras
import numpy as np
import pytest

import keras_distill as kd


def test_a_map_is_the_sum_over_channels():
    keras.utils.set_random_seed(0)
    net = kd.models.conv_net((8, 8, 1), 3, filters=(4, 6))
    images = kd.data.load("digits").train.images[:5]
    tapped = keras.Model(net.inputs, net.get_layer("stack2").output)
    features = tapped.predict(images, verbose=0).astype("float64")
    expected = (features**2).sum(-1)
    expected /= expected.max((1, 2), keepdims=True)
    found = kd.analysis.attention_maps(net, images, "stack2", batch_size=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_maps_are_drawn_side_by_side(tmp_path):
    pytest.importorskip("matplotlib")
    images, maps = np.ones((3, 8, 8, 1)), np.ones((3, 4, 4))
    figure = kd.analysis.plot_attention_maps(images, {"teacher": maps, "student": maps})
    assert len(figure.axes) == 9
    figure.savefig(tmp_path / "a.png")
    with pytest.raises(ValueError, match="same number of images"):
        kd.analysis.plot_attention_maps(images, {"teacher": maps[:2]})


def test_a_layer_without_maps_is_rejected():
    net = kd.models.mlp((8, 8, 1), 3, units=(4,))
    with pytest.raises(ValueError, match="need a layer with outputs"):
        kd.analysis.attention_maps(net, np.zeros((1, 8, 8, 1), "float32"), "hidden1")
