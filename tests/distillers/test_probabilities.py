"""Probabilities where logits are expected: behind reshapes, in subclasses, in few values."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.taps.last_activations import last_activation

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Own(keras.Model):
    """Computes its outputs in its own code, behind a layer."""

    def __init__(self, outputs, activation, end):
        super().__init__()
        self.head = layers.Dense(outputs, activation)
        self.end = end

    def call(self, x):
        return self.end(self.head(x))


def functional(outputs, activation, end):
    inputs = keras.Input((6,))
    head = layers.Dense(outputs, activation, name="head")
    return keras.Model(inputs, end(head(inputs)))


def net(kind, outputs, activation, end=lambda p: p, seed=0, bias=0.0):
    """Return a model whose outputs are moved behind its head."""
    keras.utils.set_random_seed(seed)
    if kind == "own":
        model = Own(outputs, activation, end)
    else:
        model = functional(outputs, activation, end)
    if kind == "nested":
        inputs = keras.Input((6,))
        model = keras.Model(inputs, layers.Flatten()(model(layers.Identity()(inputs))))
    if kind == "sequential":
        model = keras.Sequential([keras.Input((6,)), model, layers.Identity()])
    model(X)
    weights = model.get_weights()
    model.set_weights([weights[0], weights[1] + bias])
    return model


MOVES = {
    "reshape": lambda p: layers.Reshape((-1, 1))(p),
    "squeeze": lambda p: ops.squeeze(ops.expand_dims(p, 1), 1),
    "concatenate": lambda p: layers.Concatenate()([p, p]),
    "operation": lambda p: ops.concatenate([p, ops.flip(p, -1)], -1)[..., :3],
    "activation": lambda p: layers.Activation("linear")(p),
}


@pytest.mark.parametrize("move", [*MOVES])
@pytest.mark.parametrize("kind", ["functional", "nested", "sequential"])
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_the_activation_behind_what_moves_values(move, kind, activation):
    model = net(kind, 3, activation, MOVES[move])
    found = last_activation(model, X, kd.Tap.output())
    expected = activation or "linear"
    if move == "operation":
        # A part that is a sigmoid decides; of a flip nothing is known.
        expected = activation
    assert found == expected


def test_layers_of_a_subclass_are_walked_too():
    keras.utils.set_random_seed(0)
    model = Own(3, "sigmoid", layers.Reshape((3, 1)))
    model(X)
    assert last_activation(model, X, kd.Tap.output()) == "sigmoid"
    model = Own(3, "sigmoid", layers.Identity())
    model(X)
    assert last_activation(model, X, kd.Tap.output()) == "sigmoid"
    inputs = keras.Input((6,))
    outer = keras.Model(inputs, layers.Flatten()(model(inputs)))
    assert last_activation(outer, X, kd.Tap.output()) == "sigmoid"
    model = Own(3, "sigmoid", lambda p: p[:, :2])
    model(X)
    assert last_activation(model, X, kd.Tap.output()) is None


def test_softmax_of_another_axis_and_what_is_computed_are_unknown():
    for end in (lambda z: ops.softmax(z, axis=1), lambda z: 2.0 * z, layers.ReLU()):
        inputs = keras.Input((2, 6))
        model = keras.Model(inputs, end(layers.Dense(3)(inputs)))
        assert last_activation(model, X[None, :2], kd.Tap.output()) is None
    inputs = keras.Input((2, 6))
    steps = layers.TimeDistributed(layers.Dense(3, "softmax"))(inputs)
    model = keras.Model(inputs, steps)
    assert last_activation(model, X[None, :2], kd.Tap.output()) == "softmax"
    inputs = keras.Input((2, 6))
    outer = keras.Sequential([inputs, model])
    assert last_activation(outer, X[None, :2], kd.Tap.output()) == "softmax"


def fit(student, teacher, loss=BINARY, rows=32):
    y = RNG.integers(0, 2, student(X).shape).astype("float32")
    if loss is SPARSE:
        y = np.arange(len(X)) % student(X).shape[-1]
    distiller = kd.Distiller(student, teacher, label_weight=float(loss is not None))
    distiller.compile(keras.optimizers.SGD(0.0), loss)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        data = (X[:rows], y[:rows]) if loss is not None else (X[:rows],)
        distiller.fit(*data, verbose=0)
    return [str(x.message) for x in found if "may be probabilities" in str(x.message)]


@pytest.mark.parametrize("move", ["reshape", "squeeze", "concatenate"])
@pytest.mark.parametrize("kind", ["functional", "nested"])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_sigmoid_behind_a_move_is_refused_on_both_sides(side, kind, move):
    """Of few values, all below 0.5 too."""
    pair = {
        name: net(
            kind,
            3,
            "sigmoid" if name == side else None,
            MOVES[move],
            bias=-9.0 if name == side else 0.0,
        )
        for name in ("student", "teacher")
    }
    with pytest.raises(ValueError, match=rf"The {side}'s .*as_logits\(model\)"):
        fit(**pair, rows=2)


def test_sigmoids_where_a_softmax_compares_are_refused():
    pair = net("functional", 3, None), net("functional", 3, "sigmoid", seed=1)
    with pytest.raises(ValueError, match="a softmax of probabilities"):
        fit(*pair, loss=None)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_what_only_values_show_is_warned_of(side):
    pair = {
        name: net("own", 3, "sigmoid" if name == side else None, lambda p: 1.0 * p)
        for name in ("student", "teacher")
    }
    if side == "teacher":
        weights = pair["teacher"].get_weights()
        pair["teacher"].set_weights([weights[0], weights[1] - 9.0])
    (message,) = fit(**pair)
    assert re.search(rf"The {side}'s 'logits'.* may be probabilities", message)
    assert "kd.as_logits(model)" in message


def test_a_student_of_its_own_code_is_warned_of_without_terms_on_its_outputs():
    class Named(Own):
        def __init__(self, activation):
            super().__init__(2, activation, lambda p: p[:, :1])

    keras.utils.set_random_seed(0)
    student, teacher = Named("sigmoid"), Named(None)
    student(X), teacher(X)
    term = kd.Term(kd.losses.Hint(), "head", "head")
    distiller = kd.Distiller(student, teacher, terms=[term])
    distiller.compile(keras.optimizers.SGD(0.0), BINARY)
    with pytest.warns(UserWarning, match="outputs may be probabilities.*as_logits"):
        distiller.fit(X, np.ones((32, 1), "float32"), verbose=0)


def test_small_logits_are_no_probabilities():
    """A linear layer is known to return logits, whatever their values."""
    student = net("functional", 3, None, MOVES["squeeze"])
    weights = student.get_weights()
    student.set_weights([0.01 * weights[0], weights[1] + 0.5])
    teacher = net("functional", 3, None, MOVES["reshape"], seed=1)
    teacher = keras.Model(teacher.inputs, layers.Flatten()(teacher.output))
    weights = teacher.get_weights()
    teacher.set_weights([0.01 * weights[0], weights[1] + 0.5])
    assert fit(student, teacher) == []
    own = net("own", 3, None, lambda z: 5.0 * z)
    assert fit(own, teacher) == []


def test_moved_logits_do_not_fit_a_loss_of_probabilities():
    student = net("functional", 3, None, MOVES["squeeze"])
    weights = student.get_weights()
    student.set_weights([0.01 * weights[0], weights[1] + 0.5])
    with pytest.raises(ValueError, match=r"returns logits.*takes probabilities"):
        fit(student, net("functional", 3, None, seed=1), "binary_crossentropy")
