"""The default term of a loss that is not Keras's follows the labels."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.distillers.label_tasks import task_of_labels

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")


def squares(y, z):
    return ops.mean(ops.square(ops.cast(y, z.dtype) - z), axis=-1)


def classes(y, z):
    return keras.losses.sparse_categorical_crossentropy(y, z, from_logits=True)


class Own(keras.losses.Loss):
    def call(self, y, z):
        return squares(y, z)


def net(outputs, seed=0, shape=(6,)):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Dense(outputs)(layers.Dense(5)(inputs)))


NUMBERS = RNG.normal(size=(16, 3)).astype("float32")
ONES = (NUMBERS > 0).astype("float32")
UNIT = RNG.random((16, 3)).astype("float32")
SOFTMAX = UNIT / UNIT.sum(-1, keepdims=True)
INDICES = np.arange(16) % 3


@pytest.mark.parametrize(
    ("labels", "shape", "expected"),
    [
        (NUMBERS, (None, 3), "values"),
        (NUMBERS[:, :1], (None, 1), "values"),
        (NUMBERS[:, 0], (None, 1), "values"),
        (NUMBERS[:, 0], (None,), "values"),
        (NUMBERS[:, 0], (None, 2), "values"),
        (10 * INDICES, (None, 1), "values"),
        (ONES, (None, 3), "labels"),
        (2 * ONES - 1, (None, 3), "labels"),
        (0.1 + 0.8 * ONES, (None, 3), "labels"),
        (ONES[:, 0], (None, 1), "labels"),
        (SOFTMAX, (None, 3), "classes"),
        (np.eye(3)[INDICES], (None, 3), "classes"),
        (INDICES, (None, 3), "classes"),
        (INDICES[:, None].astype("float32"), (None, 3), "classes"),
        (np.where(INDICES, INDICES, 255)[INDICES > 0], (None, 3), "classes"),
        (np.zeros((2, 3, 3), "int32"), (None, 3, 3, 4), "classes"),
        # Numbers of several kinds, labels of another shape, and no numbers.
        (UNIT, (None, 3), None),
        (UNIT[:, 0], (None, 1), None),
        (100 + INDICES, (None, 3), None),
        (NUMBERS, (None, 8), None),
        (np.array(["a", "b"]), (None, 3), None),
        ("text", (None, 3), None),
    ],
)
def test_what_labels_show(labels, shape, expected):
    assert task_of_labels(labels, shape) == expected


def first_logs(distiller, loss, y, **settings):
    distiller.compile(keras.optimizers.SGD(0.0), loss, **settings)
    return distiller.fit(X, y, batch_size=16, verbose=0).history


@pytest.mark.parametrize("loss", [squares, Own()])
@pytest.mark.parametrize("outputs", [1, 3])
def test_values_are_not_softmaxed(loss, outputs):
    student, teacher = net(outputs), net(outputs, 1)
    p, q = (m.predict(X, verbose=0).astype("float64") for m in (student, teacher))
    distiller = kd.Distiller(student, teacher)
    found = first_logs(distiller, loss, NUMBERS[:, :outputs])
    assert set(found) == {"loss", "label_loss", "output_regression"}
    np.testing.assert_allclose(
        found["output_regression"][0], ((p - q) ** 2).mean(), rtol=1e-5
    )
    again = distiller.fit(X, NUMBERS[:, :outputs], verbose=0).history
    assert "output_regression" in again
    # Other labels, other terms: the step is compiled anew.
    if outputs == 3:
        distiller.fit(X, ONES, verbose=0)
        assert "binary_soft_target" in distiller.terms


def test_classes_stay_classes():
    found = first_logs(kd.Distiller(net(3), net(3, 1)), classes, INDICES)
    assert "soft_target" in found


def test_data_of_which_the_first_batch_is_read():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return X, NUMBERS

    distiller = kd.Distiller(net(3), net(3, 1))
    distiller.compile("sgd", squares)
    found = distiller.fit(Batches(), verbose=0).history
    assert "output_regression" in found


def test_labels_that_show_nothing_are_an_error():
    distiller = kd.Distiller(net(3), net(3, 1))
    with pytest.raises(ValueError, match=r"'squares'.*\(16, 3\).*terms=\[kd.Term"):
        first_logs(distiller, squares, UNIT)
    terms = [kd.Term(kd.losses.OutputRegression())]
    distiller = kd.Distiller(net(3), net(3, 1), terms=terms)
    assert "output_regression" in first_logs(distiller, squares, UNIT)


def test_peers_and_exits_follow_the_labels():
    peers = [net(3), net(3, 1)]
    distiller = kd.MutualDistiller(peers)
    first_logs(distiller, squares, NUMBERS)
    for member in distiller.members:
        (bound,) = member.terms.values()
        assert isinstance(bound.term.loss, kd.losses.OutputRegression)
    assert isinstance(distiller.sources[0].loss, kd.losses.OutputRegression)
    inputs = keras.Input((6,))
    hidden = layers.Dense(5, "relu", name="hidden")(inputs)
    whole = keras.Model(inputs, layers.Dense(3)(hidden))
    distiller = kd.SelfDistiller(whole, ["hidden"])
    first_logs(distiller, squares, NUMBERS)
    found = distiller.terms["soft_hidden"].term.loss
    assert isinstance(found, kd.losses.OutputRegression)


def test_one_of_several_outputs():
    def two(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((6,))
        box, kind = layers.Dense(3, name="box"), layers.Dense(3, name="kind")
        return keras.Model(inputs, {"box": box(inputs), "kind": kind(inputs)})

    terms = [
        kd.Term(kd.losses.LogitRegression(), f"logits/{x}", f"logits/{x}", name=x)
        for x in ("box", "kind")
    ]
    distiller = kd.Distiller(two(0), two(1), terms=terms)
    loss = {"box": squares, "kind": classes}
    first_logs(distiller, loss, {"box": NUMBERS, "kind": INDICES})
    assert distiller.terms["box"].predicts == "values"
    assert distiller.terms["kind"].predicts == "classes"
