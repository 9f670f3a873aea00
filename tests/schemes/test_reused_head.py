"""Reused heads: against NumPy, at all sizes, frozen, saved; what can't be joined."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from tests.nets import conv_pair

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def images(count=24, size=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, size, size, 1)).astype("float32")
    return x, rng.integers(0, 3, count)


def conv_net(name, widths, strides, head=None):
    """Convolutions that end in `stack1`, ...; a pooling, and a head of some layers."""
    keras.utils.set_random_seed(len(name))
    x = inputs = keras.Input((8, 8, 1))
    for i, (width, stride) in enumerate(zip(widths, strides, strict=True), start=1):
        x = layers.Conv2D(width, 3, stride, "same", name=f"conv{i}")(x)
        x = layers.ReLU(name=f"stack{i}")(x)
    for layer in head or [layers.GlobalAveragePooling2D(name="pool")]:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name=name)


def distilled(model, teacher, term, x, y=None, epochs=2, **arguments):
    distiller = kd.Distiller(model, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.01), validate_terms=True, **arguments)
    history = distiller.fit(x, y, batch_size=8, epochs=epochs, verbose=0).history
    return distiller, history


def features(model, layer, x):
    part = keras.Model(model.input, model.get_layer(layer).output)
    return ops.convert_to_numpy(part(x)).astype("float64")


def numpy_linear(x, kernel):
    """A convolution with padding, or a product."""
    if kernel.ndim == 2:
        return x @ kernel
    size = kernel.shape[0]
    around = [(0, 0), *[(size // 2, size // 2)] * 2, (0, 0)]
    padded, (_, height, width, _) = np.pad(x, around), x.shape
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def numpy_projector(model, x):
    """The authors' `transfer`, in inference form."""
    projector = model.get_layer("projector")
    for i in (1, 2, 3):
        (kernel,) = projector.get_layer(f"linear{i}").get_weights()
        norm = projector.get_layer(f"norm{i}")
        gamma, beta, mean, variance = (w.astype("float64") for w in norm.get_weights())
        x = numpy_linear(x, kernel.astype("float64"))
        x = gamma * (x - mean) / np.sqrt(variance + norm.epsilon) + beta
        x = np.maximum(x, 0.0)
    return x


def halved(maps):
    count, height, width, channels = maps.shape
    return maps.reshape(count, height // 2, 2, width // 2, 2, channels).mean((2, 4))


SIZES = {
    "same": ((1, 2), (1, 2)),
    "larger": ((1, 1), (1, 2)),
    "smaller": ((2, 2), (1, 2)),
}


@pytest.mark.parametrize("size", SIZES)
def test_maps_against_numpy(size):
    (x, y), strides = images(), SIZES[size]
    student = conv_net("student", (3, 4), strides[0])
    teacher = conv_net("teacher", (4, 6), strides[1])
    model, term = kd.reuse_teacher_head(student, teacher)
    distiller, _ = distilled(model, teacher, term, x, y, metrics=["accuracy"])
    own, other = features(student, "stack2", x), features(teacher, "stack2", x)
    own = halved(own) if size == "larger" else own
    other = halved(other) if size == "smaller" else other
    projected = numpy_projector(model, own)
    assert projected.shape == other.shape and model.output.shape == (None, 3)
    expected = ((projected - other) ** 2).mean()
    logs = distiller.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    kernel, bias = teacher.get_layer("logits").get_weights()
    logits = projected.mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(model.predict(x, verbose=0), logits, atol=1e-5)
    accuracy = np.mean(logits.argmax(-1) == y)
    np.testing.assert_allclose(logs["accuracy"], accuracy, atol=1e-6)


def test_vectors_against_numpy():
    x = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
    keras.utils.set_random_seed(1)
    student = kd.models.mlp((5,), 3, units=(6, 4), name="student")
    teacher = kd.models.mlp((5,), 3, units=(8,), dropout=0.5, name="teacher")
    model, term = kd.reuse_teacher_head(student, teacher, factor=3)
    distiller, _ = distilled(model, teacher, term, x)
    projected = numpy_projector(model, features(student, "hidden2", x))
    assert model.get_layer("projector").get_layer("linear1").units == 2
    expected = ((projected - features(teacher, "hidden1", x)) ** 2).mean()
    found = distiller.evaluate(x, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    kernel, bias = teacher.get_layer("logits").get_weights()
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(predicted, projected @ kernel + bias, atol=1e-5)


def test_the_head_is_a_frozen_copy(tmp_path):
    """Of all that comes after the features, without dropout."""
    (x, y) = images()
    pool, dropout = layers.GlobalMaxPooling2D(), layers.Dropout(0.5)
    head = layers.BatchNormalization(name="norm"), pool, dropout
    student = conv_net("student", (3, 4), (1, 2))
    teacher = conv_net("teacher", (4, 6), (1, 2), head)
    teacher.compile("adam", CROSS_ENTROPY)
    teacher.fit(x, y, verbose=0)
    model, term = kd.reuse_teacher_head(student, teacher, teacher_layer="stack2")
    copy, before = model.get_layer("teacher_head"), teacher.get_weights()
    trained = {v.path.split("/")[-2] for v in model.trainable_variables}
    inside = [f"{kind}{i}" for kind in ("linear", "norm") for i in (1, 2, 3)]
    assert trained == {"conv1", "conv2", *inside}
    distilled(model, teacher, term, x)
    assert all(map(np.array_equal, before, teacher.get_weights()))
    own = [*teacher.get_layer("norm").get_weights(), *before[-2:]]
    assert len(own) == len(copy.weights) == 6
    assert all(any(np.array_equal(a, b) for b in own) for a in copy.get_weights())
    shared = {id(v) for v in teacher.variables} & {id(v) for v in model.variables}
    assert not shared
    maps = np.random.default_rng(1).normal(size=(5, 4, 4, 6)).astype("float32")
    rest = keras.Model(teacher.get_layer("stack2").output, teacher.output)
    for training in (False, True):
        found = ops.convert_to_numpy(copy(maps, training=training))
        expected = ops.convert_to_numpy(rest(maps, training=False))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    model.save(tmp_path / "student.keras")
    again = keras.saving.load_model(tmp_path / "student.keras")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(again.predict(x, verbose=0), expected, atol=1e-6)
    assert len(again.trainable_variables) == len(model.trainable_variables)
    again.compile("adam", CROSS_ENTROPY)
    again.fit(x, y, verbose=0)
    for a, b in zip(
        copy.get_weights(), again.get_layer("teacher_head").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_it_learns():
    """Without labels, a student with the teacher's head predicts as the teacher."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5)).astype("float32")
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    keras.utils.set_random_seed(1)
    teacher = kd.models.mlp((5,), 3, units=(24, 16), name="teacher")
    teacher.compile(keras.optimizers.Adam(0.01), CROSS_ENTROPY)
    teacher.fit(x, y, epochs=30, verbose=0)
    student = kd.models.mlp((5,), 3, units=(24,), name="student")
    model, term = kd.reuse_teacher_head(student, teacher)
    _, history = distilled(model, teacher, term, x, epochs=50)
    assert history["reused_head"][-1] < 0.3 * history["reused_head"][0]
    agrees = [m.predict(x, verbose=0).argmax(-1) for m in (model, teacher)]
    assert np.mean(agrees[0] == agrees[1]) > 0.9


def last(model):
    return model.get_layer("projector").layers[-1].name


def test_the_last_relu_is_where_the_teachers_features_end_in_one():
    student = conv_net("student", (3, 4), (1, 2))
    pooled = [layers.MaxPooling2D(), layers.Dropout(0.1), layers.Flatten()]
    ends = {
        "relu3": conv_net("relu", (4, 6), (1, 2)),
        "norm3": conv_net(
            *("norm", (4, 6), (1, 2)),
            [layers.BatchNormalization(), layers.GlobalAveragePooling2D()],
        ),
    }
    for name, teacher in ends.items():
        assert last(kd.reuse_teacher_head(student, teacher)[0]) == name
    block = keras.Sequential(
        [keras.Input((4, 4, 6)), layers.Conv2D(6, 1, activation="relu")]
    )
    teacher = conv_net(
        "nested", (4, 6), (1, 2), [block, layers.GlobalAveragePooling2D()]
    )
    assert last(kd.reuse_teacher_head(student, teacher)[0]) == "relu3"
    teacher = conv_net("flat", (4, 6), (1, 2), pooled)
    vectors = kd.models.mlp((8, 8, 1), 3, units=(4,), name="vectors")
    model, term = kd.reuse_teacher_head(vectors, teacher)
    assert last(model) == "relu3"
    distilled(model, teacher, term, *images())


@pytest.mark.long
def test_students_of_other_kinds():
    """A Sequential, a backbone without a head, a layer by its path, mixed precision."""
    (x, y), (student, teacher) = images(), conv_pair()
    backbone = keras.Model(student.inputs, student.get_layer("stack2").output)
    row = keras.Sequential(student.layers)
    stem = {"student_layer": "stack1", "teacher_layer": kd.Tap("conv2", side="input")}
    for net, taps in ((row, {}), (backbone, {}), (student, stem)):
        model, term = kd.reuse_teacher_head(net, teacher, **taps)
        distilled(model, teacher, term, x, y, epochs=1)
        assert model.predict(x, verbose=0).shape == (24, 3)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = conv_pair(name="half")[0]
    finally:
        keras.config.set_dtype_policy(policy)
    model, term = kd.reuse_teacher_head(half, teacher)
    inside = model.get_layer("projector").get_layer("linear2")
    assert inside.dtype_policy.name == "mixed_bfloat16"
    distilled(model, teacher, term, x, y, epochs=1)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 5), "float32"))
    return model


def bypassed():
    x = inputs = keras.Input((8, 8, 1))
    y = layers.Conv2D(4, 3, padding="same", name="stack1")(x)
    y = layers.GlobalAveragePooling2D()(layers.Concatenate()([x, y]))
    return keras.Model(inputs, layers.Dense(3)(y))


def nested():
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, conv_net("inner", (3, 4), (1, 2))(inputs), name="nested")


def small():
    return conv_net("student", (3, 4), (1, 2))


def masked():
    inputs = keras.Input((None,))
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = layers.GlobalAveragePooling1D()(layers.LSTM(4, return_sequences=True)(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


FLAT = [layers.Flatten(name="flat")]
BAD = {
    "subclassed": (subclassed, small, {}, ["Subclassed", "keras.Model(inputs"]),
    "no model": (lambda: "net", small, {}, ["functional or Sequential"]),
    "a bypass": (small, bypassed, {"teacher_layer": "stack1"}, ["bypasses 'stack1'"]),
    "inside": (
        *(small, nested, {"teacher_layer": "inner/stack2"}),
        ["inside of another", "teacher_layer"],
    ),
    "nothing at the top": (small, nested, {}, ["neither a global pooling"]),
    "no such layer": (small, small, {"student_layer": "stack5"}, ["no layer 'stack5'"]),
    "an output": (
        *(small, small, {"teacher_layer": kd.Tap.output()}),
        ["teacher_layer is the path of a layer"],
    ),
    "axes": (
        *(lambda: kd.models.mlp((8, 8, 1), 3, units=(4,)), small, {}),
        ["(None, 4) can't be projected to the teacher's (None, 4, 4, 4)"],
    ),
    "a head of one size": (
        lambda: conv_net("student", (3, 4), (2, 2)),
        lambda: conv_net("flat", (3, 4), (1, 2), FLAT),
        {"teacher_layer": "stack2"},
        ["(None, 4, 4, 4)", "(None, 2, 2, 4)", "pools globally"],
    ),
    "masks": (masked, masked, {}, ["have a mask", "side='input'"]),
    "no factor": (small, small, {"factor": 0}, ["factor must be an integer of 1"]),
}


@pytest.mark.parametrize("student, teacher, taps, words", BAD.values(), ids=BAD)
def test_what_cannot_be_joined_raises(student, teacher, taps, words):
    with pytest.raises(ValueError) as error:
        kd.reuse_teacher_head(student(), teacher(), **taps)
    for word in words:
        assert word in str(error.value)


def test_features_behind_a_pooling_by_a_mask():
    taps = kd.Tap.layer("logits", side="input")
    student, teacher = masked(), masked()
    model, term = kd.reuse_teacher_head(
        student, teacher, student_layer=taps, teacher_layer=taps
    )
    short, long = np.array([[3, 4, 5]]), np.array([[3, 4, 5, 0, 0]])
    np.testing.assert_allclose(model(short), model(long), atol=1e-6)
    x = np.array([[3, 4, 0], [5, 0, 0]])
    distilled(model, teacher, term, x, np.array([0, 1]), epochs=1)
