"""Two momenta: against NumPy, against SGD without a gap, on replicas, resumed, saved."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from tests.formulas import softmax
from tests.nets import conv_pair
from tests.training.test_resuming import Stop, assert_same

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATES = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.05])
DOT, SGD = kd.optimizers.DistillationOrientedSGD, keras.optimizers.SGD


def data(count=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 5)).astype("float32"), rng.integers(0, 3, count)


def net(seed, width=4, name="student", **arguments):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,))
    x = layers.Dense(width, "tanh", name="hidden", **arguments)(inputs)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name=name)


def numpy_steps(gradients, start, rates, momentum, gap, nesterov):
    """Return a weight after steps with gradients of labels and terms, None for none."""
    weight, momenta = np.array(start, "float64"), [0.0, 0.0]
    seen = [False, False]
    for pair, rate in zip(gradients, rates, strict=True):
        seen = [a or b is not None for a, b in zip(seen, pair, strict=True)]
        apart = gap if all(seen) else 0.0
        for i, factor in enumerate((momentum - apart, momentum + apart)):
            g = 0.0 if pair[i] is None else pair[i].astype("float64")
            momenta[i] = factor * momenta[i] - rate * g
            weight = weight + (
                factor * momenta[i] - rate * g if nesterov else momenta[i]
            )
    return weight


REACHED = {
    "both": [(1, 1)] * 4,
    "labels": [(1, 0)] * 4,
    "terms": [(0, 1)] * 4,
    "terms later": [(1, 0), (1, 0), (1, 1), (1, 1)],
    "labels at first": [(1, 1), (0, 1), (0, 1), (0, 1)],
}


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_equal_numpy(nesterov):
    rng, rates = np.random.default_rng(0), [0.1, 0.1, 0.05, 0.05]
    variables = [keras.Variable(rng.normal(size=(3, 2))) for _ in REACHED]
    starts = [ops.convert_to_numpy(v) for v in variables]
    gradients = {
        name: [
            tuple(rng.normal(size=(3, 2)).astype("float32") if x else None for x in row)
            for row in rows
        ]
        for name, rows in REACHED.items()
    }
    optimizer = DOT(RATES, 0.9, 0.075, nesterov=nesterov)
    for step in range(4):
        labels, terms = (
            [
                None if rows[step][i] is None else ops.convert_to_tensor(rows[step][i])
                for rows in gradients.values()
            ]
            for i in range(2)
        )
        optimizer.apply(optimizer.join_parts(labels, terms), variables)
    for variable, start, rows in zip(
        variables, starts, gradients.values(), strict=True
    ):
        expected = numpy_steps(rows, start, rates, 0.9, 0.075, nesterov)
        np.testing.assert_allclose(ops.convert_to_numpy(variable), expected, atol=1e-6)


def test_a_distillers_steps_equal_numpy():
    """Labels with an L2 penalty and a weight, and logits with another weight."""
    x, y = data()
    keras.utils.set_random_seed(3)

    def linear(name, **arguments):
        inputs = keras.Input((5,))
        dense = layers.Dense(3, use_bias=False, name="logits", **arguments)
        return keras.Model(inputs, dense(inputs), name=name)

    student = linear("student", kernel_regularizer=keras.regularizers.L2(0.1))
    teacher = linear("teacher")
    weight, other = (m.get_weights()[0].astype("float64") for m in (student, teacher))
    terms = [kd.Term(kd.losses.LogitRegression(), weight=0.7)]
    distiller = kd.Distiller(student, teacher, terms=terms, label_weight=0.5)
    distiller.compile(DOT(0.1, 0.8, 0.15), CROSS_ENTROPY)
    momenta = [0.0, 0.0]
    for _ in range(3):
        distiller.train_on_batch(x, y)
        gap = softmax(x @ weight) - np.eye(3)[y]
        labels = 0.5 * x.T @ gap / len(x) + 0.2 * weight
        of_terms = 0.7 * x.T @ (x @ (weight - other)) / len(x)
        momenta = [0.65 * momenta[0] - 0.1 * labels, 0.95 * momenta[1] - 0.1 * of_terms]
        weight = weight + sum(momenta)
    np.testing.assert_allclose(student.get_weights()[0], weight, atol=1e-5)


def distilled(optimizer, kind="plain", epochs=2, **arguments):
    """Train a distiller of each kind; return its weights."""
    regularizer = keras.regularizers.L2(0.01)
    student = net(1, kernel_regularizer=regularizer)
    terms = [kd.Term(kd.losses.SoftTarget(2.0), weight=0.5)]
    if kind in ("mutual", "three peers"):
        others = [net(2, name="other"), net(2, 5, "third")][: 1 + (kind != "mutual")]
        distiller = kd.MutualDistiller([student, *others], terms)
    elif kind == "self":
        distiller = kd.SelfDistiller(student, ["hidden"])
    else:
        terms.append(kd.Term(kd.losses.Hint(), "hidden", "hidden", weight=3.0))
        distiller = kd.Distiller(student, net(2, 7, "teacher"), terms=terms)
    loss = None if kind == "without labels" else CROSS_ENTROPY
    # Plain ones are traced, others save the time for it.
    distiller.compile(optimizer, loss, run_eagerly=kind != "plain", **arguments)
    x, y = data()
    x, y = (x, None) if kind == "without labels" else (x, y)
    distiller.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return [ops.convert_to_numpy(v) for v in distiller.trainable_variables]


def assert_close(found, expected, atol=1e-6):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


KINDS = "plain", "without labels", "mutual", "three peers", "self"


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_gap_it_is_sgd(kind):
    settings = {"momentum": 0.9, "nesterov": kind == "plain", "weight_decay": 0.01}
    found = distilled(DOT(0.05, momentum_gap=0.0, **settings), kind)
    expected = distilled(SGD(0.05, **settings), kind)
    assert_close(found, expected, 1e-5)
    apart = distilled(DOT(0.05, momentum_gap=0.09, **settings), kind)
    # Without labels, the student's penalty has the smaller momentum.
    assert any(abs(a - b).max() > 1e-3 for a, b in zip(apart, expected, strict=True))


def test_another_model_than_a_distiller_trains_as_with_sgd():
    x, y = data()
    models = net(1), net(1)
    settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    for model, optimizer in zip(models, (DOT, SGD), strict=True):
        model.compile(optimizer(0.05, **settings), CROSS_ENTROPY)
        model.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0)
    assert_close(*(m.get_weights() for m in models), atol=1e-6)


@pytest.mark.long
def test_scaled_losses_and_averaged_weights():
    """Powers of 2 change nothing; the average is SGD's where there is no gap."""
    expected = distilled(DOT(0.05))
    assert_close(distilled(DOT(0.05, loss_scale_factor=1024.0)), expected)
    scaling = keras.optimizers.LossScaleOptimizer(DOT(0.05), initial_scale=1024.0)
    assert_close(distilled(scaling), expected)
    kept = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}
    found = distilled(DOT(0.05, momentum_gap=0.0, **kept))
    assert_close(found, distilled(SGD(0.05, 0.9, **kept)), 1e-5)


def test_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = distilled(DOT(0.05), epochs=1)
    finally:
        keras.config.set_dtype_policy(policy)
    assert_close(half, distilled(DOT(0.05), epochs=1), 0.02)


def test_an_embedding_whose_gradient_has_some_rows():
    def tokens(seed, name):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((6,), dtype="int32")
        x = layers.Embedding(11, 4, name="embedding")(inputs)
        x = layers.GlobalAveragePooling1D()(x)
        return keras.Model(inputs, layers.Dense(3)(x), name=name)

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 11, (16, 6)), rng.integers(0, 3, 16)
    found = []
    for optimizer in (DOT(0.1, momentum_gap=0.0), SGD(0.1, 0.9)):
        distiller = kd.Distiller(tokens(1, "student"), tokens(2, "teacher"))
        distiller.compile(optimizer, CROSS_ENTROPY)
        distiller.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        found.append(distiller.student.get_weights())
    assert_close(*found, atol=1e-5)


def test_two_replicas_equal_one(images, two_replicas):
    def train():
        keras.utils.set_random_seed(5)
        student, teacher = conv_pair(norm=False)
        terms = [
            kd.Term(kd.losses.SoftTarget(2.0)),
            kd.Term(kd.losses.Hint(), "stack2", "stack2", weight=2.0),
        ]
        distiller = kd.Distiller(student, teacher, terms=terms)
        distiller.compile(DOT(0.05), CROSS_ENTROPY)
        distiller.fit(*images, 11, epochs=3, shuffle=False, verbose=0)
        return [np.array(v) for v in distiller.trainable_variables]

    one = train()
    with two_replicas.scope():
        two = train()
    assert_close(one, two, 1e-5)


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    def fit(*callbacks):
        distiller = kd.Distiller(net(1), net(2, 7, "teacher"))
        distiller.compile(DOT(0.05), CROSS_ENTROPY)
        distiller.fit(*data(), 8, 4, verbose=0, callbacks=list(callbacks))
        return distiller

    whole = fit(kd.BackupAndRestore(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(kd.BackupAndRestore(tmp_path / "killed"), Stop(7))
    assert_same(whole, fit(kd.BackupAndRestore(tmp_path / "killed")))


def test_a_saved_distiller_goes_on(tmp_path):
    teacher = net(2, 7, "teacher")
    distiller = kd.Distiller(net(1), teacher)
    distiller.compile(DOT(0.05, 0.8, 0.1, nesterov=True), CROSS_ENTROPY)
    distiller.fit(*data(), 8, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    again.set_teacher(teacher)
    assert again.optimizer.get_config() == distiller.optimizer.get_config()
    for model in (distiller, again):
        model.fit(*data(), 8, shuffle=False, verbose=0)
    assert_close(again.student.get_weights(), distiller.student.get_weights())


def test_it_learns():
    x, y = data(60)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    teacher = net(2, 16, "teacher")
    teacher.compile("adam", CROSS_ENTROPY)
    teacher.fit(x, y, epochs=60, verbose=0)
    distiller = kd.Distiller(net(1, 8), teacher)
    distiller.compile(DOT(0.05), CROSS_ENTROPY)
    history = distiller.fit(x, y, epochs=30, verbose=0).history
    assert history["soft_target"][-1] < 0.2 * history["soft_target"][0]
    assert history["label_loss"][-1] < 0.7 * history["label_loss"][0]


def test_other_optimizers_get_one_gradient():
    """So that their step has one pass backwards, as before."""
    distiller = kd.Distiller(net(1), net(2, 7, "teacher"))
    for optimizer, takes in (("sgd", False), (DOT(), True)):
        distiller.compile(optimizer, CROSS_ENTROPY)
        assert distiller.takes_parts() == takes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"momentum": 0.0, "momentum_gap": 0.0}, "momentum above 0"),
        ({"momentum": 0.95, "momentum_gap": 0.06}, "below 1"),
        ({"momentum_gap": 0.95}, "momentum_gap must be 0 to 0.9"),
        ({"momentum_gap": -0.1}, "momentum_gap must be 0 to 0.9"),
        ({"clipnorm": 1.0}, "clipnorm is of one gradient"),
        ({"clipvalue": 1.0}, "clipvalue is of one gradient"),
        ({"global_clipnorm": 1.0}, "global_clipnorm is of one gradient"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps is of one"),
    ],
)
def test_what_it_does_not_take_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        DOT(**arguments)
