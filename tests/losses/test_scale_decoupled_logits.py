"""Logits of regions against NumPy in float64, and the source's code in plain NumPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill import losses
from keras_distill.losses import ScaleDecoupledLogits
from tests.formulas import softmax
from tests.losses.test_decoupled_target import decoupled

SOFT = losses.SoftTarget(2.0)
LABELS = np.array([0, 4, 2])
TAPS = kd.Tap("pool", side="input"), kd.Tap("logits", side="input")
numbers = ops.convert_to_numpy


class Problem:
    """Maps and last layers of a teacher of 5 channels and a student of 3."""

    def __init__(self, sizes=((8, 8), (4, 4)), classes=5):
        rng = np.random.default_rng(0)
        self.maps = [
            2 * rng.normal(size=(3, *size, width))
            for size, width in zip(sizes, (5, 3), strict=True)
        ]
        self.heads = [
            (rng.normal(size=(width, classes)), rng.normal(size=classes))
            for width in (5, 3)
        ]

    def logits(self, scales):
        """Return the logits of all regions of both sides, `(B, R, K)`."""
        found = []
        for f, (kernel, bias) in zip(self.maps, self.heads, strict=True):
            parts = []
            for s in scales:
                height, width = f.shape[1] // s, f.shape[2] // s
                for i in range(s):
                    for j in range(s):
                        rows = slice(i * height, (i + 1) * height)
                        columns = slice(j * width, (j + 1) * width)
                        parts.append(f[:, rows, columns].mean((1, 2)) @ kernel + bias)
            found.append(np.stack(parts, 1))
        return found

    def weights(self, teacher, complementary):
        """Return those of the regions; the whole is the first."""
        first = teacher[:, :1].argmax(-1)
        return np.where(teacher.argmax(-1) == first, 1.0, complementary)

    def loss(self, loss, **context):
        sides = [(f, f.mean((1, 2))) for f in self.maps]
        return loss(*sides, **self.tensors(), **context)

    def tensors(self):
        heads = [tuple(ops.cast(x, "float32") for x in head) for head in self.heads]
        return {"teacher_head": heads[0], "student_head": heads[1]}


def divergence(teacher, student, temperature=2.0):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


@pytest.mark.parametrize("scales", [(1, 2, 4), (1, 2), (1, 4)])
def test_equals_numpy(scales):
    problem = Problem()
    teacher, student = problem.logits(scales)
    weights = problem.weights(teacher, 3.0)
    assert 0.2 < (weights == 1.0).mean() < 0.8
    expected = (weights * divergence(teacher, student)).mean(-1)
    loss = ScaleDecoupledLogits(SOFT, scales=scales, complementary=3.0, reduction=None)
    np.testing.assert_allclose(problem.loss(loss), expected, rtol=1e-4)


def test_decoupled_targets_get_the_labels_of_their_image():
    problem = Problem()
    teacher, student = problem.logits((1, 2))
    rows = np.repeat(LABELS, 5)
    flat = (x.reshape(-1, 5) for x in (teacher, student))
    values = decoupled(*flat, rows, 2.0, 1.0, 3.0).reshape(3, 5)
    expected = (problem.weights(teacher, 2.0) * values).mean(-1)
    inner = losses.DecoupledTarget(2.0, beta=3.0, reduction=None)
    loss = ScaleDecoupledLogits(inner, scales=(1, 2))
    for labels in (LABELS, LABELS[:, None], np.eye(5)[LABELS]):
        found = problem.loss(loss, labels=labels)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def sources(teacher, student, labels):
    """The source's weights: by whether the region and the whole are right."""
    total = 0.0
    for z_t, z_s, y in zip(teacher, student, labels, strict=True):
        whole_is_right = z_t[0].argmax() == y
        for region, other in zip(z_t, z_s, strict=True):
            weight = 1.0 if (region.argmax() == y) == whole_is_right else 2.0
            total += weight * divergence(region, other)
    return total / teacher[..., 0].size


def test_equals_the_source_where_the_teacher_is_right():
    problem = Problem()
    teacher, student = problem.logits((1, 2, 4))
    expected = sources(teacher, student, teacher[:, 0].argmax(-1))
    found = problem.loss(ScaleDecoupledLogits(SOFT))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_scale_of_one_is_the_loss_itself():
    problem = Problem(sizes=((5, 7), (3, 2)))
    teacher, student = problem.logits((1,))
    found = problem.loss(ScaleDecoupledLogits(SOFT, scales=(1,), reduction=None))
    np.testing.assert_allclose(found, divergence(teacher, student)[:, 0], rtol=1e-4)


def test_gradient_equals_finite_differences(gradient, central_difference):
    problem = Problem()
    loss = ScaleDecoupledLogits(SOFT)
    teacher, _ = problem.logits((1, 2, 4))
    weights = problem.weights(teacher, 2.0)
    whole, start = problem.maps

    def value(maps):
        problem.maps[1] = maps
        return (weights * divergence(teacher, problem.logits((1, 2, 4))[1])).mean()

    def found(maps):
        sides = ((f, ops.mean(f, axis=(1, 2))) for f in (whole, maps))
        return loss(*sides, **problem.tensors())

    expected = central_difference(value, start)
    np.testing.assert_allclose(gradient(found, start), expected, rtol=1e-3, atol=1e-5)


def net(name, filters=4, classes=2):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(filters, 3, padding="same", activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)


def bars(count):
    """Return images with a bar that lies or stands, with noise, and which it does."""
    rng = np.random.default_rng(0)
    images = 0.3 * rng.normal(size=(count, 8, 8, 1)).astype("float32")
    labels = rng.integers(0, 2, count)
    for image, label, i in zip(images, labels, rng.integers(1, 7, count), strict=True):
        if label:
            image[i] += 1.0
        else:
            image[:, i] += 1.0
    return images, labels


@pytest.mark.parametrize(
    "inner", [losses.SoftTarget(2.0), losses.DecoupledTarget(2.0)], ids=["kd", "dkd"]
)
def test_a_student_learns_from_it_alone(inner, tmp_path):
    keras.utils.set_random_seed(0)
    images, labels = bars(512)
    teacher, student = net("teacher", 8), net("student")
    teacher.compile(
        keras.optimizers.Adam(0.03),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    teacher.fit(images, labels, epochs=6, verbose=0)
    term = kd.Term(ScaleDecoupledLogits(inner), student=TAPS, teacher=TAPS)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.03))
    logs = distiller.fit(images, labels, epochs=6, verbose=0).history
    key = f"scale_decoupled_{inner.name}"
    assert logs[key][-1] < 0.5 * logs[key][0]
    right = student.predict(images, verbose=0).argmax(-1) == labels
    assert right.mean() > 0.9
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    assert again.terms[key].term.loss.get_config() == term.loss.get_config()
    again.set_teacher(teacher)
    again.fit(images[:64], labels[:64], verbose=0)


def test_a_map_that_is_not_the_one_that_is_averaged():
    """A WRN normalizes the end of its last stage before it takes the mean."""
    nets = [kd.models.wide_resnet((8, 8, 1), 3, depth=10, widen=1) for _ in range(2)]
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32")
    states = kd.Tap("logits", side="input")
    for last, right in ((kd.Tap("pool", side="input"), True), ("stack3", False)):
        taps = last, states
        term = kd.Term(ScaleDecoupledLogits(SOFT), taps, taps, name="regions")
        distiller = kd.Distiller(*nets, terms=[term], label_weight=0.0)
        distiller.compile("sgd")
        if right:
            distiller.fit(images, verbose=0)
            continue
        with pytest.raises(ValueError, match="'regions': the mean over the locations"):
            distiller.fit(images, verbose=0)


def test_errors():
    with pytest.raises(TypeError, match="got 'kd'"):
        ScaleDecoupledLogits("kd")
    for inner in (losses.Hint(), losses.MultiLevelLogits(), losses.AttentionMap()):
        with pytest.raises(ValueError, match=type(inner).__name__):
            ScaleDecoupledLogits(inner)
    for scales in ((), (1, 1), 2):
        with pytest.raises(ValueError, match="scales is a tuple of different"):
            ScaleDecoupledLogits(SOFT, scales=scales)
    with pytest.raises(ValueError, match=r"scales\[1\] must be an integer"):
        ScaleDecoupledLogits(SOFT, scales=(1, 0))
    loss = ScaleDecoupledLogits(SOFT)
    for taps in (TAPS[::-1], (TAPS[1], TAPS[1])):
        with pytest.raises(
            ValueError, match=r"input of the last layer|is the input of"
        ):
            terms = [kd.Term(loss, taps, taps)]
            kd.Distiller(net("student"), net("teacher"), terms=terms)
    with pytest.raises(ValueError, match="2 logits, the teacher's 3"):
        terms = [kd.Term(loss, TAPS, TAPS)]
        kd.Distiller(net("student"), net("teacher", classes=3), terms=terms)
