"""The first batch before training: probabilities and what is not finite, by values."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.taps.heads import lie_around, sum_to_one, within_unit_interval

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = np.arange(64) % 4
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


def net(width, outputs=4, seed=0, end=None, **dense):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    x = layers.Dense(width, "tanh", name="hidden")(inputs)
    x = layers.Dense(outputs, name="out", **dense)(x)
    return keras.Model(inputs, x if end is None else end(x))


def fit(distiller, *data, loss=None, **settings):
    distiller.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return distiller.fit(*data, verbose=0, **settings).history


ENDS = {
    "activation": lambda z: layers.Activation("softmax")(z),
    "layer": lambda z: layers.Softmax()(z),
    "operation": lambda z: ops.softmax(z),
    "reshaped": lambda z: layers.Reshape((4,))(ops.softmax(z)),
    "saturated": lambda z: ops.softmax(30.0 * z),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_every_softmax_at_the_end_is_found(end, side):
    pair = [net(3), net(8, seed=1)]
    index = ["student", "teacher"].index(side)
    pair[index] = net(8, seed=1, end=ENDS[end])
    with pytest.raises(ValueError, match=rf"The {side}'s 'logits'.*as_logits\(model\)"):
        fit(kd.Distiller(*pair), X)


def test_a_member_of_an_ensemble_is_found():
    members = [net(8, seed=1), net(8, seed=2, end=ops.softmax)]
    with pytest.raises(ValueError, match=f"'{members[1].name}' are probabilities"):
        fit(kd.Distiller(net(3), kd.EnsembleTeacher(members)), X)


@pytest.mark.parametrize("end", ["layer", "saturated"])
def test_peers_and_nets_with_exits_are_found(end):
    peers = [net(3), net(8, seed=1, end=ENDS[end])]
    peers[0].name, peers[1].name = "a", "b"
    with pytest.raises(ValueError, match="are probabilities on the first batch"):
        fit(kd.MutualDistiller(peers), X)
    with pytest.raises(ValueError, match=r"'logits/deepest'.* are probabilities"):
        fit(kd.SelfDistiller(net(8, end=ENDS[end]), ["hidden"]), X)


def test_what_is_not_compared_may_be_probabilities():
    """A hidden layer is compared; the softmax at the end trains as Keras does."""
    student, teacher = net(3, activation="softmax"), net(3, seed=1, end=ops.softmax)
    term = kd.Term(kd.losses.Hint(), "hidden", "hidden")
    loss = "sparse_categorical_crossentropy"
    assert "hint" in fit(kd.Distiller(student, teacher, terms=[term]), X, Y, loss=loss)


def test_the_layer_in_front_of_a_softmax_is_compared():
    student, teacher = net(3), net(8, seed=1, end=layers.Softmax())
    term = kd.Term(kd.losses.SoftTarget(), teacher="out")
    found = fit(kd.Distiller(student, teacher, terms=[term], label_weight=0.0), X)
    z = keras.Model(teacher.inputs, teacher.get_layer("out").output)
    p, q = (
        np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        for x in (m.predict(X, verbose=0).astype("float64") / 4 for m in (z, student))
    )
    expected = 16 * (p * np.log(p / q)).sum(-1).mean()
    np.testing.assert_allclose(found["soft_target"][0], expected, rtol=1e-4)


@pytest.mark.parametrize("shift", ["log_softmax", "one_hot"])
def test_log_probabilities_and_one_hot_rows_are_logits(shift):
    if shift == "one_hot":
        end = lambda z: ops.one_hot(ops.argmax(z, -1), 4)  # noqa: E731
    else:
        end = ops.log_softmax
    teacher = net(8, seed=1, end=layers.Lambda(end, output_shape=(4,)))
    assert "soft_target" in fit(kd.Distiller(net(3), teacher, label_weight=0.0), X)


def test_a_sigmoid_is_found_for_labels():
    teacher = net(8, 3, seed=1, activation="sigmoid")
    y = (RNG.normal(size=(64, 3)) > 0).astype("float32")
    with pytest.raises(ValueError, match="a sigmoid of probabilities"):
        fit(kd.Distiller(net(3, 3), teacher), X, y, loss=BINARY)
    student = net(3, 3, activation="sigmoid")
    with pytest.raises(ValueError, match=r"The student's 'logits'.* are probabilities"):
        fit(kd.Distiller(student, net(8, 3)), X, y, loss="binary_crossentropy")
    hidden = net(8, 3, seed=1, end=lambda z: 1.0 * ops.sigmoid(3.0 * z))
    with pytest.raises(ValueError, match=r"The teacher's 'logits'.* are probabilities"):
        fit(kd.Distiller(net(3, 3), hidden), X, y, loss=BINARY)


def test_an_untrained_student_may_return_small_positive_logits():
    student, y = net(3, 1), (RNG.normal(size=(64, 1)) > 0).astype("float32")
    kernel, bias = student.get_layer("out").get_weights()
    student.get_layer("out").set_weights([0.01 * kernel, bias + 0.5])
    assert 0 < student.predict(X, verbose=0).min() < 0.5
    assert "loss" in fit(kd.Distiller(student, net(8, 1)), X, y, loss=BINARY)


@pytest.mark.parametrize(
    ("student", "loss", "message"),
    [
        (lambda: net(3), "sparse_categorical_crossentropy", "returns logits"),
        (lambda: net(3, end=lambda z: z + 1.0), "crossentropy", "returns logits"),
        (
            lambda: net(3, end=lambda z: z + 1.0),
            keras.losses.SparseCategoricalCrossentropy(),
            "returns logits",
        ),
        (lambda: net(3, end=layers.Softmax()), SPARSE, "returns probabilities"),
        (lambda: net(3, end=ops.softmax), SPARSE, "returns probabilities"),
    ],
)
def test_the_compiled_loss_takes_what_the_student_returns(student, loss, message):
    term = kd.Term(kd.losses.Hint(), "hidden", "hidden")
    distiller = kd.Distiller(student(), net(3, seed=1), terms=[term])
    with pytest.raises(ValueError, match=message):
        fit(distiller, X, Y, loss=loss)


def test_a_loss_of_ones_own_is_right_whatever_its_name():
    def weighted_crossentropy(y, z):
        return keras.losses.sparse_categorical_crossentropy(y, z, from_logits=True)

    distiller = kd.Distiller(net(3), net(8, seed=1))
    assert "loss" in fit(distiller, X, Y, loss=weighted_crossentropy)


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(side, value):
    pair = {"student": net(3), "teacher": net(8, seed=1)}
    layer = pair[side].get_layer("hidden")
    layer.set_weights([layer.get_weights()[0] * 0 + value, layer.get_weights()[1]])
    layer.activation = keras.activations.linear
    term = kd.Term(kd.losses.SimilarityMatrix(), "hidden", "hidden", name="here")
    match = f"The {side}'s 'hidden'.*term 'here'.*not finite"
    with pytest.raises(ValueError, match=match):
        fit(kd.Distiller(**pair, terms=[term]), np.abs(X))


def test_nothing_moves():
    """Neither statistics nor seeds: dropout draws as if nothing had been looked at."""
    keras.utils.set_random_seed(0)
    noise = keras.layers.GaussianNoise(0.1, seed=3)
    inputs = keras.Input((6,))
    x = layers.BatchNormalization()(layers.Dropout(0.5, seed=7)(noise(inputs)))
    student = keras.Model(inputs, layers.Dense(4)(x))
    distiller = kd.Distiller(student, net(8, seed=1))
    distiller.compile("sgd", SPARSE)
    before = [np.array(v) for v in (*student.variables, *distiller.variables)]
    distiller.check_fit((X, Y))
    after = [np.array(v) for v in (*student.variables, *distiller.variables)]
    assert distiller.first_batch_checked
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batch_is_looked_at_once():
    sizes = []

    class Counting(kd.Teacher):
        def __call__(self, inputs, taps, scores=None):
            if ops.is_tensor(inputs) and isinstance(inputs.shape[0], int):
                sizes.append(inputs.shape[0])
            return super().__call__(inputs, taps, scores)

    distiller = kd.Distiller(net(3), Counting(net(8, seed=1)))
    distiller.compile("sgd", SPARSE)
    sizes.clear()
    for _ in range(2):
        distiller.rows_to_check = 16
        distiller.check_fit((X, Y))
    assert sizes == [16]
    distiller.set_teacher(Counting(net(8, seed=2)))
    sizes.clear()
    distiller.check_fit((X, Y))
    assert sizes == [16]


def test_a_mean_of_the_student_is_not_looked_at():
    student = net(3)
    distiller = kd.Distiller(student, kd.MeanTeacher(student))
    assert not distiller.teacher.checks_first_batch
    assert "soft_target" in fit(distiller, X, Y, loss=SPARSE)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_of_probabilities(dtype):
    z = RNG.normal(size=(8, 5))
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    convert = lambda x: ops.cast(ops.convert_to_tensor(x), dtype)  # noqa: E731
    assert sum_to_one(convert(p))
    assert not sum_to_one(convert(z)) and not sum_to_one(convert(1.1 * p))
    assert not sum_to_one(convert(np.eye(5))) and not sum_to_one(convert(p[:, :1]))
    assert within_unit_interval(convert(1 / (1 + np.exp(-z))))
    assert not within_unit_interval(convert(z))
    assert lie_around(convert(p), 0.2) and not lie_around(convert(p), 1.0)


# --- a teacher that knows nothing ---


def knowing(right, size=10.0, classes=4, count=64):
    """Return a teacher whose logits are in the data, right on some, by `size` nats."""
    guesses = (Y[:count] + (np.arange(count) >= right * count)) % classes
    logits = size * np.eye(classes, dtype="float32")[guesses]
    return logits


def warned(student, teacher, y, classes=4, loss=SPARSE):
    """Fit on logits that are the data, and return the warnings."""
    inputs = {
        "a": keras.Input((classes,), name="a"),
        "b": keras.Input((classes,), name="b"),
    }
    nets = [keras.Model(inputs, 1.0 * inputs[name]) for name in "ab"]
    nets[0] = keras.Model(
        inputs, layers.Dense(classes, kernel_initializer="identity")(inputs["a"])
    )
    distiller = kd.Distiller(*nets)
    distiller.compile("sgd", loss, run_eagerly=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        distiller.rows_to_check = len(student)
        distiller.check_fit(({"a": student, "b": teacher}, y))
    return [str(x.message) for x in found if "may know nothing" in str(x.message)]


NOTHING = np.zeros((64, 4), "float32")


def test_classes_in_another_order_are_warned_of():
    (message,) = warned(NOTHING, knowing(0.0), Y)
    assert "right on 0 % of the labels, where chance is 25 %" in message
    assert "batch normalization" in message and "another order" in message


@pytest.mark.parametrize("right", [0.6, 0.9, 1.0])
def test_a_teacher_that_is_right_is_not(right):
    """Though it is as sure of what it gets wrong."""
    assert warned(NOTHING, knowing(right), Y) == []


def test_a_teacher_far_below_the_student_is_warned_of():
    (message,) = warned(knowing(0.95), knowing(0.6), Y)
    assert "right on 61 % of the labels, and the student on 95 %" in message
    assert warned(knowing(0.95), knowing(0.9), Y) == []


def test_no_alarm_on_few_samples_or_none():
    assert warned(NOTHING[:4], knowing(0.0)[:4], Y[:4]) == []
    assert warned(NOTHING, NOTHING, Y) == []


def test_one_hot_labels_and_ignored_ones():
    one_hot = np.eye(4, dtype="float32")[Y]
    dense = keras.losses.CategoricalCrossentropy(from_logits=True)
    assert len(warned(NOTHING, knowing(0.0), one_hot, loss=dense)) == 1
    mixed = 0.5 * one_hot + 0.5 * one_hot[::-1]
    assert warned(NOTHING, knowing(0.0), mixed, loss=dense) == []


def test_binary_labels():
    y = (Y > 1).astype("float32")[:, None]
    good, bad = 8.0 * (y - 0.5), 8.0 * (0.5 - y)
    zero = np.zeros((64, 1), "float32")
    assert warned(zero, good, y, 1, BINARY) == []
    (message,) = warned(zero, bad, y, 1, BINARY)
    assert "right on 0 % of the labels, where chance is 50 %" in message


def test_a_much_larger_student_is_warned_of():
    with pytest.warns(UserWarning, match="much larger than its teacher"):
        kd.Distiller(net(400), net(4, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        student = net(40)
        kd.Distiller(student, net(30, seed=1))
        kd.Distiller(student, kd.MeanTeacher(student))
        kd.Distiller(student, kd.EnsembleTeacher([net(15, seed=1), net(15, seed=2)]))


ADVISED = {
    "bce": ("bce", 1, "BinaryCrossentropy"),
    "an object": (keras.losses.CategoricalCrossentropy(), 4, "CategoricalCrossentropy"),
    "by name": ("sparse_categorical_crossentropy", 4, "SparseCategoricalCrossentropy"),
    "a class": (keras.losses.BinaryFocalCrossentropy, 1, "BinaryFocalCrossentropy"),
}


@pytest.mark.parametrize("kind", ADVISED)
@pytest.mark.parametrize("declared", [True, False])
def test_the_loss_that_was_passed_is_advised_with_logits(kind, declared):
    loss, outputs, name = ADVISED[kind]
    end = None if declared else lambda z: 20.0 * z
    student, teacher = (net(3, outputs, seed, end=end) for seed in (0, 1))
    y = np.eye(4)[Y] if kind == "an object" else Y[:, None] % outputs
    advice = rf"keras\.losses\.{name}\(from_logits=True\)"
    with pytest.raises(ValueError, match=advice):
        fit(kd.Distiller(student, teacher), X, y, loss=loss)


class OfLogits(keras.losses.Dice):
    def call(self, y_true, y_pred):
        return super().call(y_true, ops.softmax(y_pred))


WITHOUT_CHOICE = {
    "dice": keras.losses.Dice(),
    "tversky": keras.losses.Tversky,
    "kl_divergence": "kld",
    "categorical_generalized_cross_entropy": (
        keras.losses.CategoricalGeneralizedCrossEntropy()
    ),
}


@pytest.mark.parametrize("name", WITHOUT_CHOICE)
@pytest.mark.parametrize("declared", [True, False])
def test_losses_of_probabilities_without_a_choice_are_refused(name, declared):
    y = Y if name.startswith("categorical") else np.eye(4, dtype="float32")[Y]
    end = None if declared else lambda z: 20.0 * z
    advice = rf"returns logits.*{name}\(y, keras\.ops\.softmax\(z\)\)"
    loss, terms = WITHOUT_CHOICE[name], [kd.Term(kd.losses.Hint(), "hidden", "hidden")]
    with pytest.raises(ValueError, match=advice):
        distiller = kd.Distiller(net(3, end=end), net(3, seed=1), terms=terms)
        fit(distiller, X, y, loss=loss)
    distiller = kd.Distiller(net(3, end=ops.softmax), net(3, seed=1), terms=terms)
    assert "loss" in fit(distiller, X, y, loss=loss)


def test_the_advice_for_losses_without_a_choice_is_right():
    y = np.eye(4, dtype="float32")[Y]
    for loss in (OfLogits(), lambda y, z: keras.losses.dice(y, ops.softmax(z))):
        found = fit(kd.Distiller(net(3), net(3, seed=1)), X, y, loss=loss)
        assert 0.0 < found["label_loss"][0] < 1.0


def test_poisson_takes_no_negative_means():
    y = np.ones((len(X), 4), "float32")
    with pytest.raises(ValueError, match=r"negative values.*activation='softplus'"):
        fit(kd.Distiller(net(3), net(3, seed=1)), X, y, loss="poisson")
    pair = [net(3, seed=i, activation="softplus") for i in range(2)]
    assert "loss" in fit(kd.Distiller(*pair), X, y, loss=keras.losses.Poisson())
