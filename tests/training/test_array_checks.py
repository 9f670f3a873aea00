"""Arrays that no step could take are refused before it, by the argument's name."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from keras_distill.training import array_checks

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y, W = np.arange(8) % 3, np.ones(8, "float32")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def changed(array, value, at=5):
    array = np.array(array, "float32" if array.dtype.kind != "f" else array.dtype)
    array[at] = value
    return array


NAN, INF = float("nan"), float("inf")
BAD = {
    "NaN in the inputs": ((changed(X, NAN), Y, W), ["x is not finite"]),
    "infinite inputs": ((changed(X, -INF), Y, W), ["x is not finite"]),
    "infinite half floats": (
        (changed(X, 1e6).astype("float16"), Y, W),
        ["x is not finite"],
    ),
    "NaN in labels": ((X, changed(Y, NAN), W), ["y is not finite"]),
    "infinite labels": ((X, changed(Y, INF), W), ["y is not finite"]),
    "fractional labels": ((X, Y + 0.5, W), ["y", "whole numbers", "0.5"]),
    "labels that are strings": ((X, Y.astype(str), W), ["y is strings", "np.unique"]),
    "labels that are objects": (
        (X, np.array([*"abcdefg", 1], dtype=object), W),
        ["y has the dtype object"],
    ),
    "complex labels": ((X, Y + 1j, W), ["y is complex"]),
    "complex inputs": ((X + 1j, Y, W), ["x is complex"]),
    "inputs that are objects": (
        (np.array([[1, None, 2, 3]] * 8, dtype=object), Y, W),
        ["x has the dtype object"],
    ),
    "inputs that are strings": ((X.astype(str), Y, W), ["x is strings"]),
    "more labels": ((X, np.arange(9) % 3, W), ["x has 8", "y has 9"]),
    "fewer labels": ((X, Y[:7], W), ["x has 8", "y has 7"]),
    "fewer weights": ((X, Y, W[:7]), ["sample_weight has 7"]),
    "no features": ((X[:, :0], Y, W), ["x is empty", "(8, 0)"]),
    "one label": ((X, np.array(1), W), ["y is a scalar"]),
    "weights of another shape": (
        (X, Y, np.ones((8, 7), "float32")),
        ["sample_weight has the shape (8, 7)", "(B,)"],
    ),
    "weights of one more axis": (
        (X, Y, np.ones((8, 1, 3), "float32")),
        ["sample_weight has the shape (8, 1, 3)"],
    ),
    "negative weights": ((X, Y, changed(W, -1.0)), ["sample_weight", "-1"]),
    "NaN in weights": ((X, Y, changed(W, NAN)), ["sample_weight is not finite"]),
    "weights that are strings": ((X, Y, W.astype(str)), ["sample_weight is strings"]),
}


def dense(name):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3)], name=name)


def make(mutual=False):
    models = dense("one"), dense("two")
    distiller = kd.MutualDistiller(models) if mutual else kd.Distiller(*models)
    distiller.compile("sgd", LOSS)
    return distiller


def as_batches(x, y, weight):
    return Batches([(x, y) if weight is None else (x, y, weight)] * 2)


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


WAYS = {
    "fit": lambda d, x, y, w: d.fit(x, y, sample_weight=w, batch_size=4, verbose=0),
    "train_on_batch": lambda d, x, y, w: d.train_on_batch(x, y, w),
    "a batch of fit": lambda d, *batch: d.fit(as_batches(*batch), verbose=0),
    "evaluate": lambda d, x, y, w: d.evaluate(x, y, sample_weight=w, verbose=0),
    "test_on_batch": lambda d, x, y, w: d.test_on_batch(x, y, w),
    "validation": lambda d, *batch: d.fit(X, Y, verbose=0, validation_data=batch),
}


@pytest.mark.parametrize("way, mutual", [*((x, False) for x in WAYS), ("fit", True)])
@pytest.mark.parametrize("batch, words", BAD.values(), ids=BAD)
def test_is_refused_and_changes_nothing(batch, words, way, mutual):
    distiller = make(mutual)
    models = distiller.peers if mutual else [distiller.student]
    before = [weight for model in models for weight in model.get_weights()]
    with pytest.raises((ValueError, TypeError)) as error:
        WAYS[way](distiller, *batch)
    for word in words:
        assert word in str(error.value)
    after = [weight for model in models for weight in model.get_weights()]
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_what_is_right_passes(way):
    weights = np.array([0, 1, 2.5, 1, 1, 1, 0, 3], "float32")
    for weight in (None, weights, weights[:, None]):
        for x in (X, X.astype("float64"), X.astype("float16"), (9 * X).astype("int8")):
            distiller = make()
            before = distiller.student.get_weights()
            WAYS[way](distiller, x, Y.astype("uint8"), weight)
            after = distiller.student.get_weights()
            trained = not all(map(np.array_equal, before, after))
            assert trained == (way not in ("evaluate", "test_on_batch"))
            assert all(np.isfinite(w).all() for w in after)


def test_values_anywhere_in_large_arrays():
    x = np.full((10_000, 3), 3e38, "float32")
    array_checks.check_data(x)
    for row in (0, 4095, 4096, 9999):
        bad = x.copy()
        bad[row, 1] = np.nan
        with pytest.raises(ValueError, match="x is not finite"):
            array_checks.check_data(bad)


def test_the_part_is_named():
    with pytest.raises(ValueError, match=r"x\['mask'\] is not finite"):
        array_checks.check_data({"image": X, "mask": changed(X, NAN)})


def test_mapped_files_are_not_read_as_a_whole(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (100, 2))
    x[99] = np.nan
    array_checks.check_data(x)
    x[0] = np.nan
    with pytest.raises(ValueError, match="x is not finite"):
        array_checks.check_data(x)


@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 5), (8, 1, 1), (8, 5, 1)])
def test_shapes_of_weights(shape):
    labels = np.zeros((8, 5, 1), "int32")
    weights = np.ones(shape)
    array_checks.check_data(X, labels, weights, shapes=[(None, 5, 3)])


def sequences(name, classes=3):
    tokens = [layers.Dense(5, name="hidden"), layers.Dense(classes)]
    return keras.Sequential([keras.Input((8, 2)), *tokens], name=name)


TOKENS = np.random.default_rng(1).normal(size=(8, 8, 2)).astype("float32")
ROWS = np.eye(3, dtype="float32")[np.arange(64).reshape(8, 8) % 3]


@pytest.mark.parametrize("way", ["fit", "train_on_batch", "evaluate"])
@pytest.mark.parametrize(
    "loss, y, weight, words",
    [
        # Eight samples of eight tokens, over which Keras would spread the weights.
        (LOSS, ROWS.argmax(-1), W, ["sample_weight has the shape (8,)", "[:, None]"]),
        ("mse", ROWS[:, :, 0], None, ["labels have the shape (8, 8)", "(B, 8, 3)"]),
        ("mse", ROWS[:, 0], None, ["labels have the shape (8, 3)", "(B, 8, 3)"]),
        (
            LOSS,
            ROWS,
            None,
            ["labels have the shape (8, 8, 3)", "CategoricalCrossentropy"],
        ),
    ],
)
def test_labels_and_weights_of_tokens(loss, y, weight, words, way):
    term = kd.Term(kd.losses.Hint(), "hidden", "hidden")
    distiller = kd.Distiller(sequences("one"), sequences("two"), terms=[term])
    distiller.compile("sgd", loss)
    with pytest.raises(ValueError) as error:
        WAYS[way](distiller, TOKENS, y, weight)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("kind", [kd.losses.Verification, kd.losses.ClassTriplet])
def test_losses_of_samples_refuse_labels_of_tokens(kind):
    term = kd.Term(kind(), "hidden", "hidden")
    distiller = kd.Distiller(sequences("one"), sequences("two"), terms=[term])
    distiller.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=f"{kind.__name__} of term .* one class per"):
        distiller.fit(TOKENS, ROWS.argmax(-1), verbose=0)


def test_one_array_of_weights_for_several_outputs_weighs_hidden_layers():
    def net(name):
        inputs = keras.Input((4,))
        hidden = layers.Dense(5, name="hidden")(inputs)
        heads = {key: layers.Dense(3, name=key)(hidden) for key in "ab"}
        return keras.Model(inputs, heads, name=name)

    def distiller():
        keras.utils.set_random_seed(0)
        term = kd.Term(kd.losses.Hint(), "hidden", "hidden", weight=1.0)
        made = kd.Distiller(net("one"), net("two"), terms=[term])
        made.compile("sgd", "mse")
        return made

    rows = np.eye(3, dtype="float32")[Y]
    labels, weights = {"a": rows, "b": rows}, np.arange(8, dtype="float32")
    made = distiller()
    hidden = [
        X @ np.array(model.get_layer("hidden").kernel)
        for model in (made.student, made.teacher.model)
    ]
    expected = (weights * 0.5 * np.square(hidden[0] - hidden[1]).mean(-1)).mean()
    logs = made.fit(X, labels, sample_weight=weights, batch_size=8, verbose=0).history
    assert logs["hint"][0] == pytest.approx(expected, rel=1e-4)
    logs = distiller().train_on_batch(X, labels, weights, return_dict=True)
    assert float(logs["hint"]) == pytest.approx(expected, rel=1e-4)


CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def two_outputs():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, name="hidden")(inputs)
    outputs = {name: keras.layers.Dense(3, name=name)(x) for name in "ab"}
    return keras.Model(inputs, outputs)


def one_output():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def of_losses(loss, net=one_output):
    hint = kd.Term(kd.losses.Hint(), "hidden", "hidden")
    distiller = kd.Distiller(net(), net(), terms=[hint])
    distiller.compile("sgd", loss)
    return distiller


def of_itself():
    distiller = kd.SelfDistiller(one_output(), ["hidden"])
    distiller.compile("sgd", CROSS_ENTROPY)
    return distiller


def of_peers():
    distiller = kd.MutualDistiller([one_output(), one_output()])
    distiller.compile("sgd", CROSS_ENTROPY)
    return distiller


PARTIAL = functools.partial(
    keras.losses.sparse_categorical_crossentropy, from_logits=True
)
DISTILLERS = {
    "a list": (lambda: of_losses([CROSS_ENTROPY]), False),
    "a function": (lambda: of_losses(PARTIAL), False),
    "outputs": (
        lambda: of_losses(dict.fromkeys("ab", CROSS_ENTROPY), two_outputs),
        True,
    ),
    "itself": (of_itself, False),
    "peers": (of_peers, False),
}


@pytest.mark.parametrize("make, several", DISTILLERS.values(), ids=DISTILLERS)
@pytest.mark.parametrize("how", ["fit", "evaluate", "validation"])
@pytest.mark.parametrize(
    "change, words",
    [(lambda y: y + 3, r"lie in 0\.\.2"), (lambda y: y + 0.5, "whole numbers")],
    ids=["outside", "fractions"],
)
def test_labels_of_any_output_are_classes(make, several, how, change, words):
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    good, bad = np.arange(8) % 3, change(np.arange(8) % 3)
    if several:
        good, bad = {"a": good, "b": good}, {"a": good, "b": bad}
    distiller = make()
    before = [keras.ops.convert_to_numpy(v) for v in distiller.variables]
    with pytest.raises(ValueError, match=words):
        if how == "fit":
            distiller.fit(x, bad, verbose=0)
        elif how == "evaluate":
            distiller.evaluate(x, bad, verbose=0)
        else:
            distiller.fit(x, good, validation_data=(x, bad), verbose=0)
    for variable, value in zip(distiller.variables, before, strict=False):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    make().fit(x, good, validation_data=(x, good), verbose=0)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "2"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_weights_of_classes_are_numbers(value, by_hand):
    x, y = np.ones((8, 4), "float32"), np.arange(8) % 3
    distiller = of_losses(CROSS_ENTROPY)
    weights = {0: 1.0, 1: value, 2: 1.0}
    with pytest.raises((TypeError, ValueError), match=r"class_weight\[1\] must be"):
        if by_hand:
            distiller.train_on_batch(x, y, class_weight=weights)
        else:
            distiller.fit(x, y, class_weight=weights, verbose=0)


def test_wide_numbers_are_those_of_a_wide_model():
    x = np.ones((8, 4))
    x[3, 2] = 1e300
    keras.config.set_floatx("float64")
    try:
        assert array_checks.is_finite(x)
    finally:
        keras.config.set_floatx("float32")
    assert not array_checks.is_finite(x)


def test_numbers_above_the_range_of_float32_are_refused():
    x = np.ones((8, 4))
    x[3, 2] = 1e300
    with pytest.raises(ValueError, match=r"x is not finite.*too large for float32"):
        of_losses(CROSS_ENTROPY).fit(x, np.arange(8) % 3, verbose=0)
