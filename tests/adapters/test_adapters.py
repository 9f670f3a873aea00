"""Adapters: which are inferred from shapes, and their values against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distill import adapters, losses
from keras_distill.adapters import Match


def numpy_pool(x, size):
    """Pool adaptively, axis by axis."""
    for axis, target in enumerate(size, start=1):
        length = x.shape[axis]
        windows = [
            x.take(range(i * length // target, -(-(i + 1) * length // target)), axis)
            for i in range(target)
        ]
        x = np.stack([window.mean(axis) for window in windows], axis)
    return x


@pytest.mark.parametrize(
    "size, target",
    [
        ((8, 8), (4, 4)),
        ((7, 6), (3, 3)),
        ((8, 7), (1, 1)),
        ((7, 5), (3, 1)),
        ((9,), (4,)),
    ],
)
@pytest.mark.parametrize("jit", [None, False, True])
def test_average_pool_equals_numpy(size, target, jit):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    pool = adapters.AveragePool(target)
    run = pool if jit is None else tf.function(pool, jit_compile=jit)
    np.testing.assert_allclose(run(x), numpy_pool(x, target), atol=1e-6)
    assert pool.compute_output_shape((None, *size, 3)) == (None, *target, 3)


@pytest.mark.parametrize(
    "student, teacher, match, student_to, teacher_to",
    [
        ((None, 4), (None, 6), Match.ALL, (None, 6), None),
        ((None, 4), (None, 4), Match.ALL, None, None),
        ((None, 5, 4), (None, 5, 6), Match.ALL, (None, 5, 6), None),
        ((None, None, 4), (None, None, 6), Match.ALL, (None, None, 6), None),
        ((None, 6, 4), (None, 3, 4), Match.ALL, (None, 3, 4), None),
        ((None, 8, 8, 4), (None, 8, 8, 6), Match.ALL, (None, 8, 8, 6), None),
        ((None, 8, 8, 4), (None, 4, 4, 6), Match.ALL, (None, 4, 4, 6), None),
        ((None, 4, 4, 4), (None, 8, 8, 6), Match.ALL, (None, 4, 4, 6), (None, 4, 4, 6)),
        ((None, 8, 4, 4), (None, 4, 8, 4), Match.ALL, (None, 4, 4, 4), (None, 4, 4, 4)),
        ((None, 8, 8, 4), (None, 4, 4, 6), Match.SPACE, (None, 4, 4, 4), None),
        ((None, 8, 8, 4), (None, 4, 4, 6), Match.CHANNELS, (None, 8, 8, 6), None),
        ((None, 8, 8, 4), (None, 4, 4, 6), Match.NOTHING, None, None),
    ],
)
def test_inferred_adapters(student, teacher, match, student_to, teacher_to):
    adapters = match.infer(student, teacher)
    for layer, shape, expected in zip(
        adapters, (student, teacher), (student_to, teacher_to), strict=True
    ):
        if expected is None:
            assert layer is None
        else:
            assert layer.compute_output_shape(shape) == expected


@pytest.mark.parametrize(
    "student, teacher",
    [
        ((None, 4), (None, 8, 8, 4)),
        ((None, None, 4), (None, 5, 4)),
        ((None, 4), (None, None)),
    ],
)
def test_shapes_that_no_adapter_joins(student, teacher):
    with pytest.raises(ValueError, match="no adapter joins"):
        Match.ALL.infer(student, teacher)


def test_chained_adapters_keep_float32_under_another_policy():
    keras.config.set_dtype_policy("mixed_float16")
    student, _ = Match.ALL.infer((None, 7, 6, 5), (None, 3, 3, 4))
    keras.config.set_dtype_policy("float32")
    student.build((None, 7, 6, 5))
    assert np.isfinite(student(np.full((1, 7, 6, 5), 1e6, "float32"))).all()
    # What is loaded from its config keeps it too.
    keras.config.set_dtype_policy("mixed_float16")
    loaded = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(student)
    )
    assert loaded.compute_dtype == "float32" and loaded.supports_masking


@pytest.mark.parametrize(
    "make",
    [
        lambda: adapters.Connector(5),
        lambda: adapters.GaussianRegressor(5),
        lambda: adapters.ReviewFusion(SHAPES[:1], width=4),
        lambda: adapters.Translator(5),
        lambda: adapters.ValidConvolution((None, 3, 3, 5)),
        lambda: Match.ALL.infer((None, 4, 4, 3), (None, 2, 2, 5))[0],
        lambda: losses.EnhancedTarget().adapters((None, 4, 4, 3), (None, 10))[0],
    ],
)
def test_channels_are_the_last_axis_whatever_the_configuration(make, channels_first):
    outputs = []
    for data_format in ("channels_first", "channels_last"):
        keras.config.set_image_data_format(data_format)
        keras.utils.set_random_seed(0)
        layer = make()
        is_fusion = isinstance(layer, adapters.ReviewFusion)
        outputs.append(keras.tree.flatten(layer([MAPS] if is_fusion else MAPS)))
    for first, last in zip(*outputs, strict=True):
        np.testing.assert_array_equal(first, last)


MAPS = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
LARGE = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32") * 1e6
SHAPES = [(None, 4, 4, 5), (None, 2, 2, 6)]


@pytest.mark.parametrize(
    "make, inputs",
    [
        (lambda: adapters.Connector(5), LARGE),
        (lambda: adapters.GaussianRegressor(5), LARGE),
        (lambda: adapters.OrthogonalProjection(5), LARGE),
        (lambda: adapters.Paraphraser(0.5), LARGE),
        (lambda: adapters.ReviewFusion(SHAPES, width=4), [LARGE, LARGE[:, ::2, ::2]]),
        (lambda: adapters.Translator(5), LARGE),
        (lambda: adapters.UnitEmbedding(5), LARGE),
        (lambda: adapters.ValidConvolution((None, 3, 3, 5)), LARGE),
    ],
)
def test_adapters_compute_alike_under_another_policy(make, inputs):
    outputs = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        outputs.append(keras.tree.flatten(make()(inputs)))
    for plain, mixed in zip(*outputs, strict=True):
        np.testing.assert_array_equal(plain, mixed)
        assert np.isfinite(plain).all()


def test_valid_convolution_equals_numpy():
    layer = adapters.ValidConvolution((None, 5, 4, 7))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    y = np.array(layer(x))
    kernel, bias = (np.array(v) for v in layer.trainable_variables)
    assert y.shape == (2, 5, 4, 7) and kernel.shape == (4, 5, 3, 7)
    corner = np.einsum("bhwc,hwcd->bd", x[:, :4, :5], kernel) + bias
    np.testing.assert_allclose(y[:, 0, 0], corner, rtol=1e-4, atol=1e-5)


def test_valid_convolution_is_saved(tmp_path):
    layer = adapters.ValidConvolution((None, 5, 5, 7), activation="relu")
    model = keras.Sequential([keras.Input((8, 8, 3)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), loaded(x))


def test_valid_convolution_needs_a_smaller_target():
    with pytest.raises(ValueError, match="smaller than the teacher's"):
        adapters.ValidConvolution((None, 9, 9, 7)).build((None, 8, 8, 3))
    with pytest.raises(ValueError, match="needs target_shape"):
        adapters.ValidConvolution().build((None, 8, 8, 3))


@pytest.mark.parametrize("jit", [False, True])
def test_pooling_and_a_projection_are_inferred_for_a_map(jit):
    """A 1x1 convolution of the averages, one axis pooled to one pixel."""
    student, teacher = Match.ALL.infer((None, 7, 5, 3), (None, 3, 1, 4))
    assert teacher is None
    student.build((None, 7, 5, 3))
    x = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype("float32")
    kernel, bias = (np.array(v) for v in student.trainable_variables)
    assert kernel.shape == (1, 1, 3, 4)
    expected = numpy_pool(x, (3, 1)) @ kernel[0, 0] + bias
    found = tf.function(student, jit_compile=jit)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_configs():
    pool = adapters.AveragePool((3, 1), name="pool")
    again = adapters.AveragePool.from_config(pool.get_config())
    assert (again.size, again.name, again.dtype) == ((3, 1), "pool", "float32")
    half = adapters.GaussianRegressor(4, start=2.0, dtype="float16").get_config()
    again = adapters.GaussianRegressor.from_config(half)
    assert (again.channels, again.start, again.dtype) == (4, 2.0, "float16")
    translator = adapters.Translator(6)
    assert translator.get_config().keys() == {"name", "trainable", "dtype", "channels"}
    assert adapters.Translator.from_config(translator.get_config()).channels == 6
    layer = adapters.ValidConvolution((None, 5, 4, 7), activation="relu")
    again = adapters.ValidConvolution.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.compute_output_shape((None, 8, 8, 3)) == (None, 5, 4, 7)


@pytest.mark.parametrize("match", [Match.CLASSES, Match.OUTPUTS])
def test_a_number_of_each_sample_is_told_apart_from_a_column(match):
    words = r"\(None, 1\), the teacher \(None,\)\. Let the teacher.*Reshape\(\(1,\)\)"
    with pytest.raises(ValueError, match=words):
        match.check((None, 1), (None,))
    with pytest.raises(ValueError, match="Let the student return"):
        match.check((None,), (None, 1))


def test_a_paraphraser_refuses_channels_first():
    first = {"data_format": "channels_first", "name": "stack1"}
    inputs = keras.Input((3, 6, 6))
    x = keras.layers.Conv2D(10, 3, padding="same", **first)(inputs)
    teacher = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    paraphraser = adapters.Paraphraser()
    with pytest.raises(ValueError, match="channels_first"):
        paraphraser.train_on(teacher, "stack1", np.zeros((4, 3, 6, 6)), verbose=0)
    assert not paraphraser.built
