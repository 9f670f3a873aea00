"""The contract that every distillation loss fulfills, on every backend.

The table of methods is in `contract.py`.
"""

import inspect

import keras
import numpy as np
import pytest
from keras import ops, tree

import keras_distill as kd
from tests.differentiation import compilers, differentiate, unreached
from tests.losses.contract import LOGITS, ROWS, compare, gradients, tensor


def rows(condition):
    """Run a test for the rows that satisfy a condition."""
    chosen = [row for row in ROWS if condition(row)]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.name)


every_loss = rows(lambda row: True)
numbers = ops.convert_to_numpy


def flat(tensors):
    """Flatten tensors to one vector of float64."""
    parts = [numbers(x).astype("float64").ravel() for x in tree.flatten(tensors)]
    return np.concatenate(parts)


@rows(lambda row: row.zero)
def test_equal_inputs_give_zero_and_no_gradient(row):
    tensors = row.draw()
    values, grads, _ = gradients(row.loss(reduction=None), tensors, tensors)
    np.testing.assert_allclose(numbers(values), np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(flat(grads), 0.0, atol=1e-6)


@every_loss
def test_different_inputs_give_one_positive_value_per_sample(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    values = numbers(compare(row.loss(reduction=None), teacher, student))
    assert values.shape == (4,)
    assert values.dtype == "float32"
    assert np.all(values > 1e-4)
    mean = numbers(compare(row.loss(), teacher, student))
    np.testing.assert_allclose(mean, np.mean(values, dtype="float64"), rtol=1e-5)


@rows(lambda row: row.alone)
def test_a_sample_does_not_depend_on_its_batch(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    loss = row.loss(reduction=None)
    first = [tree.map_structure(lambda x: x[:1], x) for x in (teacher, student)]
    whole = numbers(compare(loss, teacher, student))
    alone = numbers(compare(loss, *first))
    np.testing.assert_allclose(alone, whole[:1], rtol=1e-4)
    assert np.isfinite(numbers(compare(row.loss(), *first)))


@rows(lambda row: row.tokens)
def test_sequences_give_one_value_per_token(row):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 4, *row.tokens)).astype("float32")
    loss = row.loss(reduction=None)
    values = numbers(compare(loss, teacher, student))
    assert values.shape == (4, row.tokens[0])
    # Tokens are treated as samples: only the last axis is reduced.
    one_by_one = [
        numbers(compare(loss, teacher[:, i : i + 1], student[:, i : i + 1]))
        for i in range(row.tokens[0])
    ]
    np.testing.assert_allclose(values, np.concatenate(one_by_one, 1), rtol=1e-4)


@every_loss
def test_gradient_reaches_the_student_and_not_the_teacher(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    _, grads, teacher_grads = gradients(row.loss(), teacher, student)
    assert all(np.abs(numbers(grad)).max() > 1e-6 for grad in grads)
    assert all(unreached(grad) for grad in teacher_grads)


@rows(lambda row: row.make.match.projects)
def test_gradient_reaches_the_adapters(row):
    """Narrower students learn through a projection, which is trained too."""
    teacher = row.draw("teacher", seed=1)
    narrow = [x[..., :1] for x in tree.flatten(row.draw(seed=2))]
    adapters = [
        row.make.match.infer(x.shape, target.shape)[0]
        for x, target in zip(narrow, tree.flatten(teacher), strict=True)
    ]
    for adapter, x in zip(adapters, narrow, strict=True):
        adapter.build(x.shape)

    def value(weights):
        fitted = tuple(
            adapter.stateless_call(values, [], x)[0]
            for adapter, values, x in zip(adapters, weights, narrow, strict=True)
        )
        return compare(row.loss(), teacher, fitted if len(fitted) > 1 else fitted[0])

    weights = [[w.value for w in adapter.trainable_variables] for adapter in adapters]
    _, (grads,) = differentiate(value, weights)
    for kernel, *_ in grads:
        assert np.abs(numbers(kernel)).max() > 1e-6


@every_loss
@pytest.mark.parametrize(
    "weights", [[1, 1, 1, 1], [2, 0.5, 0, 3], [[2], [0], [1], [4]]]
)
def test_sample_weights_follow_keras(row, weights):
    """The mean is sum_i w_i l_i / B: it is not divided by the sum of the weights."""
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    values = flat(compare(row.loss(reduction=None), teacher, student))
    expected = np.sum(np.ravel(weights) * values) / 4
    weighted = compare(row.loss(), teacher, student, np.array(weights, "float32"))
    np.testing.assert_allclose(numbers(weighted), expected, rtol=1e-5)


def signs(tensors, size, dtype, seed):
    """Return tensors of the same shapes with entries of plus or minus `size`."""
    rng = np.random.default_rng(seed)
    return tree.map_structure(
        lambda x: tensor(size * rng.choice([-1.0, 1.0], x.shape), dtype), tensors
    )


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_finite_at_large_inputs(row, dtype):
    teacher, student = row.draw("teacher"), row.draw()
    for size in (1e4, row.half if dtype == "float16" else 1e4):
        sides = (
            signs(teacher, size, dtype, 1),
            row.fitted(signs(student, size, dtype, 2)),
        )
        value, grads, _ = gradients(row.loss(), *sides)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert np.isfinite(numbers(value))
    assert np.all(np.isfinite(flat(grads)))
    for grad in grads:
        assert keras.backend.standardize_dtype(grad.dtype) == dtype


@every_loss
@pytest.mark.parametrize("zero", ["teacher", "student", "both"])
def test_finite_at_zero_inputs(row, zero):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    if zero in ("teacher", "both"):
        teacher = tree.map_structure(ops.zeros_like, teacher)
    if zero in ("student", "both"):
        student = row.fitted(tree.map_structure(ops.zeros_like, student))
    value, grads, _ = gradients(row.loss(), teacher, student)
    assert np.isfinite(numbers(value))
    assert np.all(np.isfinite(flat(grads)))
    if zero == "both" and row.zero:
        assert abs(value) < 1e-6


@rows(lambda row: row.single)
def test_finite_with_one_class_or_channel(row):
    sides = [
        tree.map_structure(lambda x: x[:1, ..., :1], row.draw(side, seed=seed))
        for side, seed in (("teacher", 1), ("student", 2))
    ]
    value, grads, _ = gradients(row.loss(), *sides)
    assert np.isfinite(numbers(value))
    assert np.all(np.isfinite(flat(grads)))


@rows(lambda row: row.student == LOGITS and row.single)
def test_finite_with_many_classes(row):
    rng = np.random.default_rng(0)
    teacher, student = (tensor(5.0 * rng.normal(size=(2, 100_000))) for _ in range(2))
    value, grads, _ = gradients(row.loss(), teacher, student)
    assert np.isfinite(numbers(value))
    assert np.all(np.isfinite(flat(grads)))


@every_loss
def test_half_precision_is_close_to_float32(row):
    """The loss computes in float32, so only the rounding of the inputs remains."""
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    whole = numbers(compare(row.loss(), teacher, student))
    for dtype, tolerance in (("float16", 1e-2), ("bfloat16", 1e-1)):
        half = [
            tree.map_structure(lambda x, dtype=dtype: ops.cast(x, dtype), side)
            for side in (teacher, student)
        ]
        actual = numbers(compare(row.loss(), *half))
        np.testing.assert_allclose(actual, whole, rtol=tolerance)


@every_loss
def test_computes_in_its_dtype(row):
    sides = row.draw("teacher", seed=1), row.draw(seed=2)
    values = compare(row.loss(reduction=None, dtype="float16"), *sides)
    assert keras.backend.standardize_dtype(values.dtype) == "float16"
    assert np.all(np.isfinite(numbers(values)))


@every_loss
@pytest.mark.parametrize(
    "compiler", ["traced", pytest.param("jit", marks=pytest.mark.long)]
)
def test_eager_equals_traced(row, compiler):
    if compiler not in compilers():
        pytest.skip(f"{keras.backend.backend()} has no such compiled step")
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    loss, weight = row.loss(), tensor([1.0, 0.0, 2.0, 0.5])

    def step(teacher, student):
        return gradients(loss, teacher, student, sample_weight=weight)[:2]

    value, grads = step(teacher, student)
    traced = compilers()[compiler](step)(teacher, student)
    np.testing.assert_allclose(numbers(traced[0]), numbers(value), rtol=1e-5)
    np.testing.assert_allclose(flat(traced[1]), flat(grads), rtol=1e-4, atol=1e-6)


def arguments_of(cls):
    """Return the names of the arguments of a constructor, less a dtype, as Keras does."""
    parameters = inspect.signature(cls).parameters.values()
    names = {x.name for x in parameters if x.kind is not x.VAR_KEYWORD}
    return names - {"dtype"}


@every_loss
@pytest.mark.parametrize("way", ["config", "keras"])
def test_survives_the_config(row, way):
    loss = row.loss(name="mine", reduction=None)
    if way == "config":
        again = type(loss).from_config(loss.get_config())
    else:
        again = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(loss)
        )
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert (again.name, again.reduction) == ("mine", None)
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    np.testing.assert_array_equal(
        *(numbers(compare(one, teacher, student)) for one in (again, loss))
    )
    for name in arguments_of(type(loss)):
        assert name in loss.get_config()
    for name in loss.scheduled:
        before, after = getattr(loss, name), getattr(again, name)
        if callable(before):
            assert float(before(7)) == float(after(7)) != float(before(0))


def tiny_net(name, filters=(3, 4)):
    x = inputs = keras.Input((6, 6, 1))
    for i, width in enumerate(filters, start=1):
        x = keras.layers.Conv2D(
            width, 3, padding="same", activation="tanh", name=f"stack{i}"
        )(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="logits")(x), name=name)


def draw_kernels(model, seed):
    """Draw all kernels with NumPy, the same on every backend (Glorot's scale)."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) > 1:
            *window, rows, columns = weight.shape
            scale = (2 / (rows + columns) / np.prod(window)) ** 0.5
            weight.assign(rng.normal(scale=scale, size=weight.shape))


def features(model, layers, images):
    outputs = [model.get_layer(layer).output for layer in layers]
    tensors = tree.flatten(keras.Model(model.input, outputs)(images))
    tensors = [numbers(x).astype("float64") for x in tensors]
    return tensors if len(tensors) > 1 else tensors[0]


@rows(lambda row: row.layers)
@pytest.mark.long
def test_the_student_comes_closer_to_what_is_transferred(row):
    """A few steps on this term alone, evaluated on images not used for training."""
    teacher, student = tiny_net("teacher"), tiny_net("student")
    rng = np.random.default_rng(0)
    images = rng.normal(size=(120 * 64, 6, 6, 1)).astype("float32")
    unseen = rng.normal(size=(64, 6, 6, 1)).astype("float32")
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[kd.Term(row.loss(), row.layers, row.layers, adapter=row.adapter)],
        label_weight=0.0,
    )
    draw_kernels(teacher, seed=3)
    draw_kernels(distiller, seed=8)
    target = features(teacher, row.layers, unseen)
    before = row.measure(target, features(student, row.layers, unseen))
    distiller.compile(keras.optimizers.Adam(0.02))
    labels = np.argmax(teacher.predict(images, verbose=0), -1)
    distiller.fit(images, labels, batch_size=64, shuffle=False, verbose=0)
    after = row.measure(target, features(student, row.layers, unseen))
    assert after < row.closer * before
