"""Data, folders and teachers of unusual kinds: cached rightly, or refused by name."""

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y, IDS = np.arange(12) % 3, np.arange(12)


def net():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.set_weights([np.arange(12.0).reshape(4, 3) / 10, np.zeros(3)])
    return model


def as_samples(x):
    return kd.data.Samples(x, Y)


def as_batches(x, **others):
    inputs = {"image": x, "sample_id": IDS, **others}
    return tf.data.Dataset.from_tensor_slices((inputs, Y)).batch(4)


def build(folder, data, teacher=None):
    cached = kd.CachedTeacher(folder, teacher or net(), dtype="float32")
    return cached.build(data, verbose=0)


@pytest.mark.parametrize("make", [as_samples, as_batches])
@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16", "int8", "bool"])
def test_numbers_of_any_kind(tmp_path, dtype, make):
    x = (3 * X).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    found = build(tmp_path, make(x)).read(IDS)["logits"]["all"]
    expected = x.astype("float64") @ (np.arange(12.0).reshape(4, 3) / 10)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # Opened again, of the same data.
    build(tmp_path, make(x))


@pytest.mark.parametrize("make", [as_samples, as_batches])
@pytest.mark.parametrize("kind", ["<U1", "object", "complex64"])
def test_what_is_no_number_is_refused(tmp_path, kind, make):
    x = np.full((12, 4), "a", kind) if kind != "complex64" else X + 1j
    with pytest.raises(TypeError, match="recognizes samples by the numbers"):
        build(tmp_path, make(x))
    assert not list(tmp_path.iterdir())


def test_strings_are_not_joined(tmp_path):
    cached = build(tmp_path, as_samples(X))
    with pytest.raises(TypeError, match=r"of the dtype .*string"):
        cached.join(as_batches(np.full((12, 4), "a")))


def test_strings_beside_the_inputs(tmp_path):
    """They are part of the data, by what they are and not where they lie."""
    names = [f"file {i}" for i in IDS]
    build(tmp_path, as_batches(X, file=names))
    build(tmp_path, as_batches(X, file=names))
    with pytest.raises(ValueError, match="not built with this data"):
        build(tmp_path, as_batches(X, file=names[::-1]))


def test_what_lies_in_the_place_of_the_contents(tmp_path):
    link, folder = tmp_path / "link" / "cache.json", tmp_path / "folder" / "cache.json"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "nothing")
    folder.mkdir(parents=True)
    for path in (link, folder):
        with pytest.raises(ValueError, match=f"'{path}' can't be read"):
            build(path.parent, as_samples(X))


def test_a_teacher_in_the_place_of_the_folder():
    with pytest.raises(TypeError, match=r"expected a path.* got Sequential"):
        kd.CachedTeacher(net(), "folder")


class Scaled(keras.Model):
    """A teacher of which Keras knows no configuration."""

    def __init__(self, function, scale):
        super().__init__()
        self.function, self.scale, self.dense = function, scale, net()

    def call(self, inputs):
        return self.dense(self.function(inputs)) * self.scale


def test_another_attribute_is_another_teacher(tmp_path):
    def scaled(scale):
        model = Scaled(lambda x: x, scale)
        model(X)
        return model

    build(tmp_path, as_samples(X), scaled(1.0))
    build(tmp_path, as_samples(X), scaled(1.0))
    with pytest.raises(ValueError, match="not built with this teacher"):
        build(tmp_path, as_samples(X), scaled(2.0))
    # What compiling and training set is none of the teacher's own.
    trained = scaled(1.0)
    trained.compile("sgd", "mse", steps_per_execution=1)
    trained.stop_training = True
    build(tmp_path, as_samples(X), trained)
