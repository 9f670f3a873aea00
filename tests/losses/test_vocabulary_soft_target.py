"""Soft targets in chunks against NumPy in float64, and against the whole logits."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill.losses import SoftTarget, VocabularySoftTarget
from tests.differentiation import compilers, differentiate
from tests.formulas import log_softmax

# A chunk has 4 tokens: several with a remainder, several without, and less than one.
SHAPES = [(3, 7), (2, 8), (1, 3), (1, 1)]
TEMPERATURE, LABEL_WEIGHT = 2.0, 0.3
numbers = ops.convert_to_numpy


def formula(states, kernel, bias, teacher, labels, label_weight=LABEL_WEIGHT):
    """Return the loss of each token in float64; `teacher` is its logits."""
    z, t = states @ kernel + bias, TEMPERATURE
    log_p, log_q = log_softmax(teacher / t), log_softmax(z / t)
    soft = t**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1)
    true = np.take_along_axis(log_softmax(z), labels[..., None], -1)[..., 0]
    return soft - label_weight * true


class Problem:
    """States and last layers of a teacher of width 5 and a student of width 3."""

    def __init__(self, shape=(3, 7), vocabulary=11):
        rng = np.random.default_rng(1)
        draw = lambda *size: rng.normal(size=size)  # noqa: E731
        self.student, self.teacher = draw(*shape, 3), draw(*shape, 5)
        self.kernel, self.bias = draw(3, vocabulary), draw(vocabulary)
        self.teacher_kernel, self.teacher_bias = draw(5, vocabulary), draw(vocabulary)
        self.labels = rng.integers(0, vocabulary, shape)
        self.logits = self.teacher @ self.teacher_kernel + self.teacher_bias

    @property
    def inputs(self):
        return [ops.cast(x, "float32") for x in (self.student, self.kernel, self.bias)]

    def loss(self, states, kernel, bias, **arguments):
        """Compute the loss under test from the tensors that it is differentiated by."""
        defaults = {"label_weight": LABEL_WEIGHT, "chunk": 4, "reduction": None}
        call = {
            name: arguments.pop(name)
            for name in ("mask", "sample_weight")
            if name in arguments
        }
        transposed = arguments.pop("transposed", False)
        teacher = self.teacher_kernel.astype("float32"), self.teacher_bias
        return VocabularySoftTarget(TEMPERATURE, **{**defaults, **arguments})(
            self.teacher,
            states,
            teacher_head=(teacher[0], ops.cast(teacher[1], "float32")),
            student_head=(kernel, bias, transposed),
            labels=self.labels,
            **call,
        )

    def whole(self, states, kernel, bias):
        """Compute the same from all logits, by `SoftTarget` and Keras's inputs loss."""
        z = ops.matmul(states, kernel) + bias
        label = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction=None
        )
        soft = SoftTarget(TEMPERATURE, reduction=None)(self.logits, z)
        return soft + LABEL_WEIGHT * label(self.labels, z)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("label_weight", [0.0, LABEL_WEIGHT])
def test_equals_numpy(shape, label_weight):
    problem = Problem(shape)
    actual = problem.loss(*problem.inputs, label_weight=label_weight)
    expected = formula(
        problem.student,
        problem.kernel,
        problem.bias,
        problem.logits,
        problem.labels,
        label_weight,
    )
    np.testing.assert_allclose(numbers(actual), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("index", [0, 1, 2], ids=["states", "kernel", "bias"])
def test_gradients_equal_finite_differences(shape, index, central_difference):
    """Tokens have different weights, so that a misplaced upstream value shows."""
    problem = Problem(shape)
    weights = 1.0 + np.arange(np.prod(shape)).reshape(shape)

    def weighted(*inputs):
        return problem.loss(*inputs) * ops.cast(weights, "float32")

    def by_numpy(array):
        inputs = [problem.student, problem.kernel, problem.bias]
        inputs[index] = array
        return (weights * formula(*inputs, problem.logits, problem.labels)).sum()

    _, grads = differentiate(weighted, *problem.inputs)
    start = (problem.student, problem.kernel, problem.bias)[index]
    expected = central_difference(by_numpy, start)
    np.testing.assert_allclose(
        numbers(grads[index]), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transposed", [False, True], ids=["dense", "embedding"])
def test_equals_the_losses_on_all_logits(shape, transposed, compiler):
    compile_by = {"none": lambda function: function, **compilers()}
    if compiler not in compile_by:
        pytest.skip(f"{keras.backend.backend()} has no such compiled step")
    problem = Problem(shape, vocabulary=300)
    inputs = problem.inputs
    value, grads = differentiate(problem.whole, *inputs)
    inputs[1] = ops.transpose(inputs[1]) if transposed else inputs[1]

    def step(*inputs):
        def loss(*inputs):
            return problem.loss(*inputs, transposed=transposed)

        return differentiate(loss, *inputs)

    actual, (states, kernel, bias) = compile_by[compiler](step)(*inputs)
    kernel = ops.transpose(kernel) if transposed else kernel
    np.testing.assert_allclose(numbers(actual), numbers(value), rtol=1e-5)
    for grad, expected in zip((states, kernel, bias), grads, strict=True):
        assert grad.shape == expected.shape
        expected = numbers(expected)
        bound = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(numbers(grad), expected, atol=bound)


@pytest.mark.parametrize("chunk", [1, 5, 1000, None])
def test_the_chunk_changes_nothing(chunk):
    problem = Problem()
    actual, grads = differentiate(
        lambda *inputs: problem.loss(*inputs, chunk=chunk), *problem.inputs
    )
    value, expected = differentiate(problem.loss, *problem.inputs)
    np.testing.assert_allclose(numbers(actual), numbers(value), rtol=1e-5)
    for grad, other in zip(grads, expected, strict=True):
        np.testing.assert_allclose(numbers(grad), numbers(other), atol=1e-5)


def test_many_tokens_at_the_default_chunk():
    """1,100 tokens are 32 chunks of 35, the last of which has 15 new ones."""
    problem = Problem((10, 110))
    actual, grads = differentiate(
        lambda *inputs: problem.loss(*inputs, chunk=None), *problem.inputs
    )
    value, expected = differentiate(problem.whole, *problem.inputs)
    np.testing.assert_allclose(numbers(actual), numbers(value), rtol=1e-4)
    for grad, other in zip(grads, expected, strict=True):
        bound = 1e-5 * np.abs(numbers(other)).max()
        np.testing.assert_allclose(numbers(grad), numbers(other), atol=bound)


def test_without_bias_and_labels():
    problem = Problem()
    states, kernel, _ = problem.inputs

    def loss(states, kernel):
        return problem.loss(states, kernel, None, label_weight=0.0)

    actual, grads = differentiate(loss, states, kernel)
    value, expected = differentiate(
        lambda states, kernel: SoftTarget(TEMPERATURE, reduction=None)(
            problem.logits, ops.matmul(states, kernel)
        ),
        states,
        kernel,
    )
    np.testing.assert_allclose(numbers(actual), numbers(value), rtol=1e-5)
    for grad, other in zip(grads, expected, strict=True):
        np.testing.assert_allclose(numbers(grad), numbers(other), atol=1e-5)


def test_mask_and_weights_are_those_of_the_tokens():
    problem = Problem((2, 7))
    mask = np.array([[1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0]], bool)
    weight = np.array([1.0, 3.0])
    values = formula(
        problem.student, problem.kernel, problem.bias, problem.logits, problem.labels
    )
    arguments = {"reduction": "sum_over_batch_size"}
    actual = problem.loss(
        *problem.inputs, mask=ops.convert_to_tensor(mask), **arguments
    )
    np.testing.assert_allclose(numbers(actual), values[mask].mean(), rtol=1e-5)
    actual = problem.loss(*problem.inputs, sample_weight=weight, **arguments)
    expected = (weight[:, None] * values).mean()
    np.testing.assert_allclose(numbers(actual), expected, rtol=1e-5)


def test_masked_tokens_have_no_gradient():
    problem = Problem((2, 7))
    mask = np.array([[1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0]], bool)

    def loss(states):
        return problem.loss(
            states,
            *problem.inputs[1:],
            mask=ops.convert_to_tensor(mask),
            reduction="sum_over_batch_size",
        )

    _, (grad,) = differentiate(loss, problem.inputs[0])
    assert np.all(numbers(grad)[~mask] == 0)
    assert np.all(np.abs(numbers(grad)[mask]).max(-1) > 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_precision(dtype):
    """The product rounds as the layer's does; the rest is computed in float32."""
    problem = Problem((4, 5))
    whole, expected = differentiate(problem.loss, *problem.inputs)
    half = [ops.cast(x, dtype) for x in problem.inputs]
    actual, grads = differentiate(problem.loss, *half)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    bound = 0.01 if dtype == "float16" else 0.08
    assert np.abs(numbers(actual) - numbers(whole)).max() < bound * numbers(whole).max()
    for grad, other in zip(grads, expected, strict=True):
        assert keras.backend.standardize_dtype(grad.dtype) == dtype
        gap = np.abs(numbers(ops.cast(grad, "float32")) - numbers(other)).max()
        assert gap < bound * np.abs(numbers(other)).max()


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"temperature": 0.0}, "temperature must be above 0; got 0"),
        ({"label_weight": -0.1}, "label_weight must be 0 or more; got -0.1"),
        ({"chunk": 0}, "chunk must be an integer of 1 or more; got 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        VocabularySoftTarget(**arguments)


def test_labels_that_are_not_classes_are_refused():
    problem = Problem()
    problem.labels = np.eye(11)[problem.labels]
    with pytest.raises(
        ValueError, match="one class per token as labels; got the shape"
    ):
        problem.loss(*problem.inputs)


def test_labels_may_have_a_last_axis_of_one():
    problem = Problem()
    value = numbers(problem.loss(*problem.inputs))
    problem.labels = problem.labels[..., None]
    np.testing.assert_array_equal(numbers(problem.loss(*problem.inputs)), value)
