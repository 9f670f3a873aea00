"""What `evaluate` and validation compute: metrics, losses, and the terms on request."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from tests.formulas import softmax

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 8)).astype("float32")
Y = np.arange(12) % 4
HELD = RNG.normal(size=(7, 8)).astype("float32")
LABELS = np.arange(7) % 4


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(width=5, seed=0, name=None, penalty=None):
    keras.utils.set_random_seed(seed)
    x = keras.Input((8,))
    hidden = layers.Dense(width, "tanh", kernel_regularizer=penalty, name="hidden")(x)
    return keras.Model(x, layers.Dense(4, name="out")(hidden), name=name)


def logits(model, x=HELD):
    return np.float64(model.predict(x, verbose=0))


def divergence(teacher, student, temperature=4.0):
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def values(model):
    return [np.array(ops.convert_to_numpy(v)) for v in model.variables]


DISTILLERS = {
    "one": lambda: kd.Distiller(net(), net(9, 1), label_weight=0.0),
    "mutual": lambda: kd.MutualDistiller([net(name="a"), net(9, 1, name="b")]),
    "self": lambda: kd.SelfDistiller(net(), ["hidden"]),
}
NAMES = {"one": [""], "mutual": ["a_", "b_"], "self": ["hidden_", "deepest_"]}


@pytest.mark.parametrize("kind", DISTILLERS)
def test_labels_in_validation_alone(kind):
    distiller = DISTILLERS[kind]()
    distiller.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    data = {"validation_data": (HELD, LABELS), "epochs": 2, "verbose": 0}
    logs = distiller.fit(X, **data).history
    assert not [name for name in logs if name.endswith("loss") and "val" in name]
    assert not [name for name in logs if "accuracy" in name and "val" not in name]
    found = distiller.predict(HELD, verbose=0)
    if kind == "self":
        outputs = [found["hidden"], found["deepest"]]
    else:
        outputs = found if kind == "mutual" else [found]
    for name, z in zip(NAMES[kind], outputs, strict=True):
        right = (z.argmax(-1) == LABELS).mean()
        assert logs[f"val_{name}accuracy"][-1] == pytest.approx(right)
    again = distiller.evaluate(HELD, LABELS, return_dict=True, verbose=0)
    assert set(again) == {f"{name}accuracy" for name in NAMES[kind]}


def test_penalties_alone_are_a_loss():
    student = net(penalty="l2")
    distiller = kd.Distiller(student, net(9, 1), label_weight=0.0)
    distiller.compile("sgd")
    found = distiller.evaluate(HELD, verbose=0)
    kernel = np.float64(ops.convert_to_numpy(student.get_layer("hidden").kernel))
    assert found == pytest.approx(0.01 * np.square(kernel).sum(), rel=1e-5)


@pytest.mark.parametrize("kind", DISTILLERS)
def test_nothing_to_evaluate(kind):
    distiller = DISTILLERS[kind]()
    distiller.compile("sgd")
    with pytest.raises(ValueError, match=r"nothing to evaluate.*validate_terms"):
        distiller.fit(X, validation_data=HELD, verbose=0)
    assert int(distiller.optimizer.iterations) == 0
    with pytest.raises(ValueError, match="nothing to evaluate"):
        distiller.evaluate(HELD, verbose=0)
    # On JAX the weights are out of the model meanwhile.
    assert len(distiller.get_weights()) == len(distiller.weights)


@pytest.mark.parametrize("terms", [False, True])
def test_a_loss_needs_labels_in_validation_too(terms):
    distiller = kd.Distiller(net(), net(9, 1))
    distiller.compile("sgd", cross_entropy(), validate_terms=terms)
    with pytest.raises(ValueError, match="the data to evaluate on have none"):
        distiller.evaluate(HELD, verbose=0)


def test_metrics_that_no_labels_reach_are_told_of():
    distiller = DISTILLERS["one"]()
    distiller.compile("sgd", metrics=["accuracy"])
    with pytest.warns(UserWarning, match="no labels for them"):
        distiller.fit(X, verbose=0)


def test_terms_are_means_over_the_validation_data():
    student, teacher = net(penalty="l2"), net(9, 1)
    terms = [
        kd.Term(kd.losses.SoftTarget(4.0), weight=0.7),
        kd.Term(kd.losses.Hint(), "hidden", "hidden", weight=2.0),
    ]
    distiller = kd.Distiller(student, teacher, terms=terms, label_weight=0.5)
    arguments = {"metrics": ["accuracy"], "validate_terms": True}
    distiller.compile(keras.optimizers.SGD(0.1), cross_entropy(), **arguments)
    weights = np.linspace(0.0, 2.0, 7).astype("float32")
    data = {"validation_data": (HELD, LABELS, weights), "validation_batch_size": 3}
    logs = distiller.fit(X, Y, verbose=0, **data).history
    z = logits(student)
    soft = (weights * divergence(logits(teacher), z)).mean()
    assert logs["val_soft_target"][0] == pytest.approx(soft, rel=1e-5)
    label = (weights * -np.log(softmax(z)[np.arange(7), LABELS])).mean()
    assert logs["val_label_loss"][0] == pytest.approx(label, rel=1e-5)
    penalty = np.square(ops.convert_to_numpy(student.get_layer("hidden").kernel)).sum()
    total = 0.5 * label + 0.7 * soft + 2.0 * logs["val_hint"][0] + 0.01 * penalty
    assert logs["val_loss"][0] == pytest.approx(total, rel=1e-5)
    assert logs["val_accuracy"][0] == pytest.approx((z.argmax(-1) == LABELS).mean())
    again = distiller.evaluate(HELD, LABELS, 2, sample_weight=weights, verbose=0)
    assert again[0] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}], ids=str)
def test_nothing_moves(how):
    """Adapters, copies, seeds and the weights' schedule are as training left them."""
    x = keras.Input((8,))
    hidden = layers.Dropout(0.5)(layers.Dense(5, name="hidden")(x))
    student = keras.Model(x, layers.Dense(4)(layers.BatchNormalization()(hidden)))
    adapter = keras.Sequential([layers.Dense(5), layers.BatchNormalization()])
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 10)
    terms = [
        kd.Term(kd.losses.SoftTarget(), weight=schedule),
        kd.Term(kd.losses.Hint(), "hidden", "hidden", adapter=adapter),
    ]
    teacher = kd.MeanTeacher(student)
    distiller = kd.Distiller(student, teacher, terms=terms, label_weight=0.0)
    distiller.compile("adam", validate_terms=True, **how)
    distiller.fit(X, verbose=0)
    before = values(distiller)
    first = distiller.evaluate(HELD, return_dict=True, verbose=0)
    second = distiller.evaluate(HELD, return_dict=True, verbose=0)
    assert first == second and {"soft_target", "hint"} <= set(first)
    for a, b in zip(before, values(distiller), strict=True):
        np.testing.assert_array_equal(a, b)


def test_label_free_training_stops_early():
    distiller = DISTILLERS["one"]()
    distiller.compile(keras.optimizers.SGD(0.0), validate_terms=True)
    stop = keras.callbacks.EarlyStopping("val_soft_target", patience=1)
    data = {"validation_data": HELD, "callbacks": [stop], "verbose": 0}
    assert len(distiller.fit(X, epochs=9, **data).history["loss"]) == 2


@pytest.mark.parametrize("refresh", [None, 2])
def test_peers_on_validation_data(refresh):
    a, b = net(name="a"), net(9, 1, name="b")
    before = logits(b)
    distiller = kd.MutualDistiller([a, b], refresh=refresh)
    distiller.compile(keras.optimizers.SGD(0.5), validate_terms=True)
    logs = distiller.fit(
        X, batch_size=4, validation_data=HELD, validation_batch_size=3, verbose=0
    ).history
    peer = logits(b)
    if refresh:
        # Copies are renewed in steps 0 and 2 of the three.
        peer = logits(distiller.copies.models[1])
        assert np.abs(peer - before).max() > 1e-4
    expected = divergence(peer, logits(a), 1.0).mean()
    assert logs["val_a_soft_target_from_b"][0] == pytest.approx(expected, rel=1e-4)
    both = logs["val_a_loss"][0] + logs["val_b_loss"][0]
    assert logs["val_loss"][0] == pytest.approx(both, rel=1e-6)


def test_exits_on_validation_data():
    distiller = DISTILLERS["self"]()
    distiller.compile(
        keras.optimizers.SGD(0.1), cross_entropy(), ["accuracy"], validate_terms=True
    )
    data = {"validation_data": (HELD, LABELS), "validation_batch_size": 7}
    logs = distiller.fit(X, Y, verbose=0, **data).history
    z = distiller.predict(HELD, verbose=0)
    deep, early = np.float64(z["deepest"]), np.float64(z["hidden"])
    soft = divergence(deep, early, 3.0).mean()
    assert logs["val_soft_hidden"][0] == pytest.approx(soft, rel=1e-4)
    surprise = [-np.log(softmax(x)[np.arange(7), LABELS]).mean() for x in (early, deep)]
    label = 0.7 * surprise[0] + surprise[1]
    assert logs["val_label_loss"][0] == pytest.approx(label, rel=1e-5)
    assert logs["val_loss"][0] == pytest.approx(label + 0.3 * soft, rel=1e-5)
    assert logs["val_hidden_loss"][0] == pytest.approx(surprise[0], rel=1e-5)


def test_an_ensemble_on_validation_data():
    student, members = net(), [net(9, 1), net(7, 2)]
    teacher = kd.EnsembleTeacher(members, average="geometric")
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    distiller.compile("sgd", validate_terms=True)
    found = distiller.evaluate(HELD, return_dict=True, verbose=0)
    mean = sum(logits(member) for member in members) / 2
    expected = divergence(mean, logits(student)).mean()
    assert found["soft_target"] == pytest.approx(expected, rel=1e-4)


def test_replicas_of_unequal_parts(two_replicas):
    """Of a last batch of one sample one replica gets none."""
    found = []
    for scope in (None, two_replicas):
        with scope.scope() if scope else keras.name_scope("one"):
            distiller = kd.Distiller(net(), net(9, 1), label_weight=0.5)
            distiller.compile("sgd", cross_entropy(), validate_terms=True)
        arguments = {"batch_size": 3, "return_dict": True, "verbose": 0}
        found.append(distiller.evaluate(HELD, LABELS, **arguments))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_a_student_that_declares_no_inputs():
    student = keras.Sequential([layers.Dense(4)])
    distiller = kd.Distiller(student, net(9, 1), label_weight=0.0)
    distiller.compile("sgd", validate_terms=True)
    found = distiller.evaluate(HELD, return_dict=True, verbose=0)
    expected = divergence(logits(distiller.teacher.model), logits(student)).mean()
    assert found["soft_target"] == pytest.approx(expected, rel=1e-4)


def test_a_memory_of_training_samples_is_refused():
    loss = kd.losses.Contrastive(samples=12, negatives=4, width=4)
    term = kd.Term(loss, "hidden", "hidden")
    distiller = kd.Distiller(net(), net(9, 1), terms=[term], sample_ids="id")
    with pytest.raises(ValueError, match=r"'contrastive'.*memory"):
        distiller.compile("sgd", validate_terms=True)


def test_it_is_saved(tmp_path):
    distiller = DISTILLERS["one"]()
    distiller.compile("sgd", validate_terms=True)
    distiller.fit(X, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    with pytest.raises(ValueError, match="no teacher"):
        loaded.evaluate(HELD, verbose=0)
    loaded.set_teacher(net(9, 1))
    found = loaded.evaluate(HELD, return_dict=True, verbose=0)
    expected = distiller.evaluate(HELD, return_dict=True, verbose=0)
    assert found == pytest.approx(expected, rel=1e-6)
