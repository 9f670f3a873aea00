"""Labels of another shape than a loss of Keras takes are refused, and no others."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from keras_distill.training.label_shapes import check_label_shape

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
IGNORING = keras.losses.SparseCategoricalCrossentropy(True, ignore_class=255)
ROWS = keras.losses.CategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


class Segmenter(keras.Model):
    def __init__(self):
        super().__init__()
        self.maps = layers.Conv2D(4, 3, strides=2, padding="same")

    def call(self, x):
        return self.maps(x)


def pair(subclassed=False):
    nets = [
        Segmenter()
        if subclassed
        else keras.Sequential(
            [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, strides=2, padding="same")]
        )
        for _ in range(2)
    ]
    for net in nets:
        net(np.zeros((1, 8, 8, 3), "float32"))
    return nets


IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
LABELS = np.arange(96).reshape(6, 4, 4) % 4
LARGE = LABELS.repeat(2, 1).repeat(2, 2)


def batched(x, y):
    yield x, y


WAYS = {
    "fit": lambda d, y: d.fit(IMAGES, y, verbose=0),
    "a generator": lambda d, y: d.fit(batched(IMAGES, y), verbose=0),
    "by batches": lambda d, y: d.train_on_batch(IMAGES, y),
}
ALONE = {
    "evaluate": lambda d, y: d.evaluate(IMAGES, y, verbose=0),
    "validation": lambda d, y: d.fit(
        IMAGES, LABELS, validation_data=(IMAGES, y), verbose=0
    ),
}
CASES = [
    *((run, False) for run in (*WAYS.values(), *ALONE.values())),
    *((run, True) for run in WAYS.values()),
]


@pytest.mark.parametrize("loss", [SPARSE, IGNORING])
@pytest.mark.parametrize("run, subclassed", CASES)
def test_labels_of_another_resolution(run, subclassed, loss):
    distiller = kd.Distiller(*pair(subclassed))
    distiller.compile("sgd", loss)
    before = distiller.student.get_weights()
    with pytest.raises(ValueError, match=r"labels have the shape") as error:
        run(distiller, LARGE)
    for word in ("(6, 8, 8)", "takes (B, 4, 4)", "outputs (B, 4, 4, 4)", "Resize"):
        assert word in str(error.value)
    if run is not ALONE["validation"]:
        pairs = zip(before, distiller.student.get_weights(), strict=True)
        assert all(np.array_equal(*both) for both in pairs)


@pytest.mark.parametrize("labels", [LABELS, LABELS[..., None]])
@pytest.mark.parametrize("run, subclassed", CASES)
def test_labels_of_its_resolution_pass(run, subclassed, labels):
    distiller = kd.Distiller(*pair(subclassed))
    distiller.compile("sgd", IGNORING)
    before = distiller.student.get_weights()
    run(distiller, labels)
    after = distiller.student.get_weights()
    trained = not all(map(np.array_equal, before, after))
    assert trained == (run is not ALONE["evaluate"])


def test_of_several_outputs_one_is_named():
    inputs = keras.Input((4,))
    outputs = {name: layers.Dense(n)(inputs) for name, n in (("box", 2), ("kind", 3))}
    net, teacher = (keras.Model(inputs, outputs) for _ in range(2))
    teacher = keras.models.clone_model(teacher)
    term = kd.Term(kd.losses.SoftTarget(), "logits/kind", "logits/kind")
    distiller = kd.Distiller(net, teacher, terms=[term])
    distiller.compile("sgd", {"box": "mse", "kind": SPARSE})
    x, kinds = np.zeros((6, 4), "float32"), np.arange(6) % 3
    labels = {"box": np.zeros((6, 2), "float32"), "kind": np.eye(3)[kinds]}
    with pytest.raises(ValueError, match=r"\(6, 3\).*CategoricalCrossentropy"):
        distiller.fit(x, labels, verbose=0)
    distiller.fit(x, {**labels, "kind": kinds}, verbose=0)


class OwnError(keras.losses.MeanSquaredError):
    def call(self, y_true, y_pred):
        return super().call(y_true[:, None], y_pred)


REFUSED = [
    (SPARSE, (6, 4), (None, 4), "One-hot"),
    (SPARSE, (6, 5), (None, 7, 4), "Reshape"),
    (ROWS, (6,), (None, 4), "Sparse"),
    (ROWS, (6, 1), (None, 4), "Sparse"),
    ("categorical_crossentropy", (6, 3), (None, 4), "Reshape"),
    (BINARY, (6, 3), (None, 2), "Reshape"),
    (BINARY, (6,), (None, 2), "Reshape"),
    ("mse", (6,), (None, 2), "Reshape"),
    (keras.losses.Huber(), (6, 3), (None, 2), "Reshape"),
]
TAKEN = [
    (SPARSE, (6,), (None, 4)),
    (SPARSE, (6, 1), (None, 4)),
    (SPARSE, (6, 5), (None, None, 4)),
    (SPARSE, (6, 1, 1), (None, 1, 4)),
    (ROWS, (6, 4), (None, 4)),
    (BINARY, (6,), (None, 1)),
    (BINARY, (6, 1), (None, 1)),
    (BINARY, (6, 3), (None, 3)),
    ("mse", (6,), (None, 1)),
    ("mse", (6, 1), (None, 2)),
    ("mse", (6, 5), (None, 5, 1)),
    (OwnError(), (6,), (None, 4)),
    (lambda y_true, y_pred: y_pred, (6, 9), (None, 4)),
]


@pytest.mark.parametrize("loss, shape, output, fix", REFUSED)
def test_shapes_that_do_not_fit(loss, shape, output, fix):
    with pytest.raises(ValueError, match=fix):
        check_label_shape(np.zeros(shape), loss, output)


@pytest.mark.parametrize("loss, shape, output", TAKEN)
def test_what_keras_takes_passes(loss, shape, output):
    check_label_shape(np.zeros(shape, "int32"), loss, output)
    if isinstance(loss, (str, keras.losses.Loss)):
        sizes = [size or n for size, n in zip(output, (6, 5, 5), strict=False)]
        value = keras.losses.get(loss)(
            np.zeros(shape, "int32"), np.zeros(sizes, "float32")
        )
        assert np.isfinite(keras.ops.convert_to_numpy(value)).all()
