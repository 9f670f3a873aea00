"""Soft targets over a vocabulary, which are computed in chunks of tokens."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill.losses import SoftTarget
from keras_distill.losses.soft_target import VOCABULARY
from keras_distill.taps.tracing import trace
from tests.differentiation import compilers, differentiate
from tests.losses.test_soft_target import soft_target, softmax

# At 6,000 classes a chunk has 87 tokens: fewer, as many, twice as many, and more.
SHAPES = [(1, 1, 6000), (3, 29, 6000), (2, 87, 6000), (5, 41, 6000), (2, 3, VOCABULARY)]
numbers = ops.convert_to_numpy


def draw(shape, scale=3.0):
    return scale * np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")


def gradient_of_the_sum(teacher, student, temperature):
    """T (q - p), from the formula."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature * (q - p)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
def test_equals_numpy(shape, compiler):
    compile_by = {"none": lambda function: function, **compilers()}
    if compiler not in compile_by:
        pytest.skip(f"{keras.backend.backend()} has no such compiled step")
    teacher, student = draw(shape)
    # A different weight for each token, so that a misplaced upstream value shows.
    weights = 1.0 + np.arange(np.prod(shape[:-1])).reshape(shape[:-1]) % 7

    def step(teacher, student, weights):
        def loss(student):
            return SoftTarget(2.0, reduction=None)(teacher, student) * weights

        return differentiate(loss, student)

    arguments = (ops.cast(x, "float32") for x in (teacher, student, weights))
    value, (grad,) = compile_by[compiler](step)(*arguments)
    sides = teacher.astype("float64"), student.astype("float64")
    expected = weights * soft_target(*sides, 2.0)
    np.testing.assert_allclose(numbers(value), expected, rtol=1e-4)
    expected = weights[..., None] * gradient_of_the_sum(*sides, 2.0)
    np.testing.assert_allclose(numbers(grad), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [1.0, 1e4])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 1000.0])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_finite_in_every_type(size, temperature, dtype):
    shape = 2, 3, 300
    teacher, student = (ops.cast(x, dtype) for x in np.sign(draw(shape)) * size)
    value, (grad,) = differentiate(
        lambda z: SoftTarget(temperature)(teacher, z), student
    )
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert keras.backend.standardize_dtype(grad.dtype) == dtype
    assert np.isfinite(numbers(value))
    assert np.all(np.isfinite(numbers(ops.cast(grad, "float32"))))


def test_half_precision_is_computed_in_float32():
    """Only the rounding of the logits remains, which NumPy gets as well."""
    teacher, student = (ops.cast(x, "float16") for x in draw((2, 3, 300)))
    sides = (numbers(x).astype("float64") for x in (teacher, student))
    value = SoftTarget(2.0, reduction=None)(teacher, student)
    np.testing.assert_allclose(numbers(value), soft_target(*sides, 2.0), rtol=1e-5)


def test_equal_logits_give_zero_and_no_gradient():
    logits = ops.convert_to_tensor(draw((2, 3, 300))[0])
    value, (grad,) = differentiate(
        lambda z: SoftTarget(2.0, reduction=None)(logits, z), logits
    )
    np.testing.assert_allclose(numbers(value), np.zeros((2, 3)), atol=1e-6)
    np.testing.assert_allclose(numbers(grad), 0.0, atol=1e-7)


def test_a_constant_added_to_all_logits_does_not_matter():
    """Logits are multiples of 1/256, to which the constants add without rounding."""
    teacher, student = np.round(draw((2, 3, 300)) * 256) / 256
    apart = SoftTarget(2.0, reduction=None)(teacher + 4096, student - 2048)
    expected = soft_target(*(x.astype("float64") for x in (teacher, student)), 2.0)
    np.testing.assert_allclose(numbers(apart), expected, rtol=1e-4)


def test_no_gradient_of_a_masked_token():
    teacher, student = draw((3, 4, 300))
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1]], bool)
    value, (grad,) = differentiate(
        lambda z: SoftTarget(2.0)(teacher, z, mask=ops.convert_to_tensor(mask)),
        ops.convert_to_tensor(student),
    )
    expected = soft_target(*(x.astype("float64") for x in (teacher, student)), 2.0)
    np.testing.assert_allclose(numbers(value), expected[mask].mean(), rtol=1e-5)
    assert np.all(numbers(grad)[~mask] == 0)
    assert np.all(np.abs(numbers(grad)[mask]).max(-1) > 0)


def test_pixels_of_many_classes():
    """All axes between the batch and the classes are tokens."""
    teacher, student = draw((2, 3, 4, 300))
    values = SoftTarget(2.0, reduction=None)(teacher, student)
    expected = soft_target(*(x.astype("float64") for x in (teacher, student)), 2.0)
    np.testing.assert_allclose(numbers(values), expected, rtol=1e-4)


def test_an_empty_batch_has_no_values():
    teacher, student = draw((0, 4, 300))
    value, (grad,) = differentiate(
        lambda z: SoftTarget(2.0, reduction=None)(teacher, z),
        ops.convert_to_tensor(student),
    )
    assert value.shape == (0, 4)
    assert grad.shape == (0, 4, 300)


def test_shapes_alone_can_be_traced():
    """As in a distiller, with a batch of unknown size."""
    logits = keras.KerasTensor((None, 4, 300))
    traced = trace(lambda z: SoftTarget(2.0, reduction=None)(z, z), logits)
    assert traced.shape == (None, 4)


def test_images_keep_their_second_derivative():
    """By rows: d2 / dz dz' sum KL = diag(q) - q q' at T = 1."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("one backend suffices: rank 2 has no custom gradient")
    import tensorflow as tf

    teacher, student = draw((2, 300))
    student = tf.constant(student)
    with tf.GradientTape() as outer:
        outer.watch(student)
        with tf.GradientTape() as inner:
            inner.watch(student)
            value = SoftTarget(1.0, reduction="sum")(teacher, student)
        grad = inner.gradient(value, student)
    q = softmax(student.numpy().astype("float64"))
    expected = np.einsum("bi,ij->bij", q, np.eye(300)) - np.einsum("bi,bj->bij", q, q)
    actual = outer.batch_jacobian(grad, student)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
