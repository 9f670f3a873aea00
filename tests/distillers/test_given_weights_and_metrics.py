"""Sample weights, metrics and labels in all the forms that Keras takes them."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from tests.linear import linear, points

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HINT = kd.losses.LogitRegression()


def two_outputs(name, seed=0):
    keras.utils.set_random_seed(seed)
    x = keras.Input((4,))
    outputs = [layers.Dense(3, name="kind")(x), layers.Dense(2, name="box")(x)]
    return keras.Model(x, outputs, name=name)


def distiller_of_two(**arguments):
    terms = [kd.Term(HINT, "kind", "kind", weight=1.0)]
    distiller = kd.Distiller(
        two_outputs("student"), two_outputs("teacher", 1), terms=terms
    )
    distiller.compile(keras.optimizers.SGD(0.0), **arguments)
    return distiller


def data(count=16):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 4)).astype("float32")
    kinds = rng.integers(0, 3, count)
    boxes = rng.normal(size=(count, 2)).astype("float32")
    return x, kinds, boxes, rng.uniform(0.1, 3.0, count).astype("float32")


@pytest.mark.parametrize("validates_terms", [False, True])
def test_one_array_of_weights_counts_in_evaluations_of_several_outputs(validates_terms):
    x, kinds, boxes, weights = data()
    y, last = {"kind": kinds, "box": boxes}, slice(12, None)
    distiller = distiller_of_two(
        loss={"kind": SPARSE, "box": "mse"},
        weighted_metrics={"kind": ["accuracy"], "box": ["mae"]},
        validate_terms=validates_terms,
    )
    found = distiller.fit(
        x, y, sample_weight=weights, validation_split=0.25, verbose=0
    ).history
    logits, values = distiller.student.predict(x[last], verbose=0)
    w = weights[last]
    right = logits.argmax(-1) == kinds[last]
    error = np.abs(values - boxes[last]).mean(-1)
    assert found["val_kind_accuracy"][0] == pytest.approx((w * right).sum() / w.sum())
    assert found["val_box_mae"][0] == pytest.approx((w * error).sum() / w.sum(), 1e-5)
    if not validates_terms:
        rows = logits.astype("float64")
        nats = np.log(np.exp(rows).sum(-1)) - rows[np.arange(4), kinds[last]]
        squares = ((values - boxes[last]) ** 2).mean(-1)
        expected = (w * nats).mean() + (w * squares).mean()
        assert found["val_loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", [list, tuple, dict])
@pytest.mark.parametrize("losses", [list, dict])
def test_labels_and_losses_may_have_different_forms(form, losses):
    x, kinds, boxes, _ = data()
    y = {"kind": kinds, "box": boxes}
    loss = {"kind": SPARSE, "box": "mse"}
    y = y if form is dict else form(y.values())
    loss = loss if losses is dict else losses(loss.values())
    history = distiller_of_two(loss=loss).fit(x, y, verbose=0).history
    assert np.isfinite(history["label_loss"]).all()


def test_classes_that_are_not_whole_are_still_found():
    x, kinds, boxes, _ = data()
    distiller = distiller_of_two(loss={"kind": SPARSE, "box": "mse"})
    with pytest.raises(ValueError, match=r"whole numbers"):
        distiller.fit(x, [kinds + 0.5, boxes], verbose=0)


def test_batches_may_be_a_dict_without_labels():
    tf = pytest.importorskip("tensorflow")
    x, *_ = data()
    inputs = keras.Input((4,), name="image")
    student = keras.Model({"image": inputs}, layers.Dense(3, name="logits")(inputs))
    teacher = linear("teacher")
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[kd.Term(HINT)],
        label_weight=0.0,
        teacher_inputs="image",
    )
    distiller.compile("sgd")
    batches = tf.data.Dataset.from_tensor_slices({"image": x}).batch(8)
    history = distiller.fit(batches, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def test_peers_have_weighted_metrics_of_their_own():
    x, classes = points(16)
    w = np.linspace(0.1, 2.0, 16).astype("float32")
    mutual = kd.MutualDistiller([linear("a"), linear("b")])
    mutual.compile(keras.optimizers.SGD(0.0), SPARSE, weighted_metrics=["accuracy"])
    found = mutual.evaluate(x, classes, sample_weight=w, verbose=0, return_dict=True)
    for peer in mutual.peers:
        right = peer.predict(x, verbose=0).argmax(-1) == classes
        expected = (w * right).sum() / w.sum()
        assert found[f"{peer.name}_accuracy"] == pytest.approx(expected, rel=1e-5)
    # Objects are copied for each peer.
    metric = keras.metrics.SparseCategoricalAccuracy(name="right")
    mutual.compile(keras.optimizers.SGD(0.0), SPARSE, weighted_metrics=[metric])
    found = mutual.evaluate(x, classes, sample_weight=w, verbose=0, return_dict=True)
    for peer in mutual.peers:
        right = peer.predict(x, verbose=0).argmax(-1) == classes
        expected = (w * right).sum() / w.sum()
        assert found[f"{peer.name}_right"] == pytest.approx(expected, rel=1e-5)


def test_every_exit_has_weighted_metrics():
    x, classes = points(16)
    w = np.linspace(0.1, 2.0, 16).astype("float32")
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, "relu", name="hidden")(inputs)
    net = keras.Model(inputs, layers.Dense(3, name="logits")(hidden))
    distiller = kd.SelfDistiller(net, ["hidden"])
    distiller.compile("sgd", SPARSE, weighted_metrics=["accuracy"])
    logs = distiller.evaluate(x, classes, sample_weight=w, verbose=0, return_dict=True)
    right = net.predict(x, verbose=0).argmax(-1) == classes
    expected = (w * right).sum() / w.sum()
    values = [value for name, value in logs.items() if name.endswith("accuracy")]
    assert len(values) == 2
    assert any(value == pytest.approx(expected, rel=1e-5) for value in values)


def test_compiled_without_a_loss_the_labels_no_longer_count():
    x, classes = points(16)
    distiller = kd.Distiller(
        linear("student"), linear("teacher"), terms=[kd.Term(HINT)]
    )
    distiller.compile("sgd", SPARSE, metrics=["accuracy"])
    distiller.fit(x, classes, verbose=0)
    distiller.compile("sgd")
    assert set(distiller.fit(x, verbose=0).history) == {"loss", "logit_regression"}


def test_an_evaluation_sees_the_teachers_new_weights():
    x, classes = points(16)
    student, teacher = linear("student"), linear("teacher")
    distiller = kd.Distiller(student, teacher, terms=[kd.Term(HINT)])
    distiller.compile("sgd", SPARSE, validate_terms=True)
    evaluate = {"verbose": 0, "return_dict": True}
    assert distiller.evaluate(x, classes, **evaluate)["logit_regression"] > 1e-3
    teacher.set_weights(student.get_weights())
    found = distiller.evaluate(x, classes, **evaluate)["logit_regression"]
    assert found == pytest.approx(0.0, abs=1e-6)


def test_random_layers_in_functions_are_warned_of_on_jax(monkeypatch):
    """Their seeds are not in the state of a step there."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    flip, drop = layers.RandomFlip(name="flip"), layers.Dropout(0.5, name="drop")
    models = linear("student"), linear("teacher")
    in_function = kd.Distiller(*models, inputs=lambda x: drop(x, training=True))
    with pytest.warns(UserWarning, match=r"\['drop'\] are called in a function"):
        in_function.entry.warn_of_random_layers()
    passed = kd.Distiller(*models, inputs=flip)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        passed.entry.warn_of_random_layers()
