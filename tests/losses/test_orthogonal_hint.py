"""Orthogonal projections, and the distance from the standardized teacher in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_distill as kd
from keras_distill.adapters import OrthogonalProjection
from keras_distill.losses import OrthogonalHint

numbers = ops.convert_to_numpy


def orthogonal_hint(teacher, student):
    rows = teacher.reshape(-1, teacher.shape[-1])
    target = (teacher - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    return ((target - student) ** 2).reshape(len(student), -1).mean(-1)


@pytest.fixture
def maps():
    return np.random.default_rng(0).normal(size=(2, 3, 2, 3, 4))


def test_equals_numpy(maps):
    found = OrthogonalHint(reduction=None)(*maps)
    np.testing.assert_allclose(found, orthogonal_hint(*maps), rtol=1e-4)


def test_gradient_equals_finite_differences(maps, gradient, central_difference):
    teacher, student = maps
    grad = gradient(lambda f: OrthogonalHint()(teacher, f), student)
    expected = central_difference(lambda f: orthogonal_hint(teacher, f).mean(), student)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_masked_steps_are_in_no_mean(maps):
    teacher, student = (x.reshape(3, 6, 4) for x in maps)
    mask = np.arange(6) < np.array([[6], [2], [3]])
    kept = orthogonal_hint(teacher[mask], student[mask])
    found = OrthogonalHint()(teacher, student, mask=mask)
    np.testing.assert_allclose(found, kept.mean(), rtol=1e-4)


@pytest.mark.parametrize(("width", "channels"), [(3, 5), (4, 4), (6, 2)])
def test_the_rows_or_columns_stay_orthonormal_in_training(width, channels):
    layer = OrthogonalProjection(channels)
    model = keras.Sequential([keras.Input((width,)), layer])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    x = np.random.default_rng(0).normal(size=(64, width))
    before = numbers(layer.matrix)
    model.fit(x, np.roll(x[:, :1], 1) * np.ones(channels), epochs=3, verbose=0)
    matrix = numbers(layer.matrix)
    assert matrix.shape == (width, channels)
    assert np.abs(matrix - before).max() > 1e-2
    few = matrix @ matrix.T if width <= channels else matrix.T @ matrix
    np.testing.assert_allclose(few, np.eye(min(width, channels)), atol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0), x @ matrix, atol=1e-5)


def test_it_keeps_lengths_and_is_saved(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 2, 3)).astype("float32")
    model = keras.Sequential([keras.Input((2, 3)), OrthogonalProjection(7)])
    found = model.predict(x, verbose=0)
    lengths = (np.linalg.norm(y, axis=-1) for y in (found, x))
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), found)


def test_the_inferred_adapter_pools_and_projects():
    adapter, pool = OrthogonalHint().adapters((None, 8, 8, 3), (None, 4, 4, 6))
    assert pool is None
    assert isinstance(adapter.layers[-1], OrthogonalProjection)
    assert adapter.compute_output_shape((None, 8, 8, 3)) == (None, 4, 4, 6)
    same, _ = OrthogonalHint().adapters((None, 3), (None, 3))
    assert isinstance(same, OrthogonalProjection)


def test_bad_channels():
    with pytest.raises(ValueError, match="channels"):
        kd.adapters.OrthogonalProjection(0)
    with pytest.raises(ValueError, match="known number of channels"):
        kd.adapters.OrthogonalProjection(3).build((None, None))
