"""Tokens of patches become the map that they were cut from."""

import keras
import numpy as np
import pytest

import keras_distill as kd


@pytest.mark.parametrize("others", [0, 1, 3])
def test_tokens_are_the_rows_of_the_map(others):
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    tokens = np.concatenate([np.ones((2, others, 5)), maps.reshape(2, 12, 5)], axis=1)
    layer = kd.adapters.TokensToMap((3, 4))
    found = keras.ops.convert_to_numpy(layer(tokens.astype("float32")))
    np.testing.assert_array_equal(found, maps)
    assert layer.compute_output_shape((None, 13, 5)) == (None, 3, 4, 5)


def test_it_is_saved_and_refuses_fewer_tokens():
    layer = kd.adapters.TokensToMap((3, 4))
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert again.size == (3, 4)
    with pytest.raises(ValueError, match=r"needs tokens .* of 12 or more"):
        again.build((None, 11, 5))
    with pytest.raises(ValueError, match="needs tokens"):
        again.build((None, 3, 4, 5))
