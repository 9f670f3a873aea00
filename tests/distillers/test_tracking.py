"""What trackers log of a distiller, and what it prints of itself."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.linear import linear, points

X, CLASSES = points(16)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
STEPS = 8


def falling(start):
    """Return a schedule from `start` to 0 in eight steps, in a straight line."""
    return keras.optimizers.schedules.PolynomialDecay(start, STEPS, 0.0)


def scheduled(**arguments):
    soft = kd.losses.SoftTarget(keras.optimizers.schedules.PolynomialDecay(8.0, 8, 4.0))
    terms = [
        kd.Term(soft, weight=falling(2.0)),
        kd.Term(kd.losses.LogitRegression(), weight=0.5, name="logits"),
    ]
    distiller = kd.Distiller(
        linear("student"), linear("teacher"), terms=terms, label_weight=falling(1.0)
    )
    distiller.compile(keras.optimizers.SGD(0.1), LOSS, **arguments)
    return distiller


def test_weights_and_temperatures_of_the_last_step_are_logged_on_request():
    distiller = scheduled(log_weights=True)
    history = distiller.fit(X, CLASSES, batch_size=4, epochs=2, verbose=0).history
    # The last steps of the epochs are 3 and 7, of 8 from a start to an end.
    last = np.array([3, 7]) / STEPS
    expected = {
        "label_weight": 1.0 - last,
        "soft_target_weight": 2.0 - 2.0 * last,
        "soft_target_temperature": 8.0 - 4.0 * last,
        "logits_weight": [0.5, 0.5],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-6, err_msg=name)


def test_without_a_request_the_logs_have_none():
    history = scheduled().fit(X, CLASSES, verbose=0).history
    assert set(history) == {"loss", "label_loss", "soft_target", "logits"}


def test_an_evaluation_has_none():
    distiller = scheduled(log_weights=True, validate_terms=True)
    logs = distiller.evaluate(X, CLASSES, verbose=0, return_dict=True)
    assert "soft_target" in logs and not any(name.endswith("weight") for name in logs)


def test_what_a_callback_assigns_is_logged(tmp_path):
    distiller = scheduled(log_weights=True)
    halve = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: distiller.terms["logits"].weight.assign(0.25)
    )
    history = distiller.fit(X, CLASSES, verbose=0, callbacks=[halve]).history
    assert history["logits_weight"] == [0.25]
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    loaded.set_teacher(linear("teacher"))
    assert "logits_weight" in loaded.fit(X, CLASSES, verbose=0).history


def test_the_logs_of_replicas_are_means_and_have_the_weights_too(two_replicas):
    histories = []
    for arguments in ({"log_weights": True}, {}):
        keras.utils.set_random_seed(0)
        with two_replicas.scope():
            distiller = scheduled(metrics=["accuracy"], **arguments)
        # Batches that do not divide evenly, so that a mean of replicas is not the mean.
        fit = distiller.fit(X[:15], CLASSES[:15], 5, shuffle=False, verbose=0)
        histories.append(fit.history)
    logged, without = histories
    np.testing.assert_allclose(logged["soft_target_weight"], [2.0 - 4.0 / STEPS])
    for name, values in without.items():
        np.testing.assert_allclose(logged[name], values, rtol=1e-6, err_msg=name)


def test_the_logs_of_peers_have_the_weights_under_their_names():
    mutual = kd.MutualDistiller([linear("a"), linear("b")])
    mutual.compile(keras.optimizers.SGD(0.1), LOSS, log_weights=True)
    history = mutual.fit(X, CLASSES, verbose=0).history
    assert history["a_label_weight"] == [1.0]
    params = mutual.get_params()
    assert params["peers"] == "a, b" and params["peers_parameters"] == 2 * 15
    names = [name for name in params if name.startswith("a.") and "temperature" in name]
    assert [params[name] for name in names] == [1.0]


def test_a_term_may_not_have_the_name_of_a_logged_weight():
    terms = [
        kd.Term(kd.losses.SoftTarget(), name="a"),
        kd.Term(kd.losses.LogitRegression(), name="a_weight"),
    ]
    distiller = kd.Distiller(linear("student"), linear("teacher"), terms=terms)
    distiller.compile("sgd", LOSS, log_weights=True)
    with pytest.raises(ValueError, match=r"\['a_weight'\] have names .* log_weights"):
        distiller.fit(X, CLASSES, verbose=0)


def test_parameters_are_flat_and_plain():
    distiller = scheduled()
    assert distiller.get_params() == {
        "distiller": "Distiller",
        "student": "student",
        "student_parameters": 15,
        "teacher_kind": "Teacher",
        "teacher": "teacher",
        "teacher_parameters": 15,
        "label_weight": "PolynomialDecay(initial_learning_rate=1.0, decay_steps=8, "
        "end_learning_rate=0.0)",
        "soft_target.loss": "SoftTarget",
        "soft_target.temperature": "PolynomialDecay(initial_learning_rate=8.0, "
        "decay_steps=8, end_learning_rate=4.0)",
        "soft_target.student": "logits",
        "soft_target.teacher": "logits",
        "soft_target.weight": "PolynomialDecay(initial_learning_rate=2.0, "
        "decay_steps=8, end_learning_rate=0.0)",
        "logits.loss": "LogitRegression",
        "logits.centred": False,
        "logits.student": "logits",
        "logits.teacher": "logits",
        "logits.weight": 0.5,
    }


def test_parameters_of_an_ensemble_and_of_a_balanced_weight():
    teacher = kd.EnsembleTeacher([linear("one"), linear("two")])
    terms = [kd.Term(kd.losses.SoftTarget(2.0), weight="balanced")]
    distiller = kd.Distiller(linear("student"), teacher, terms=terms)
    params = distiller.get_params()
    assert (params["teacher"], params["teacher_parameters"]) == ("one, two", 30)
    assert params["soft_target.weight"] == "balanced"
    distiller.compile("sgd", LOSS)
    distiller.fit(X, CLASSES, verbose=0)
    assert distiller.get_params()["soft_target.weight"] > 0


def test_what_is_printed_is_short():
    images = np.zeros((100, 8, 8, 1), "float32")
    samples = kd.data.Samples(images, np.zeros(100, "int32"))
    data = kd.data.ImageSet("zeros", samples, samples[:20], 10)
    printed = [
        (samples, "Samples(images=(100, 8, 8, 1) float32, labels=(100,) int32)"),
        (
            data,
            "ImageSet('zeros', train=100, test=20, input_shape=(8, 8, 1), classes=10)",
        ),
        (kd.losses.SoftTarget(2.0), "SoftTarget(temperature=2.0)"),
        (kd.targets.TopK(3), "TopK(k=3)"),
        (kd.Tap("stack2"), "stack2"),
        (
            kd.Term(kd.losses.Hint(), "stack1", "stack2", weight=3.0, name="first"),
            "Term(Hint(), student='stack1', teacher='stack2', weight=3.0, name='first')",
        ),
    ]
    for thing, text in printed:
        assert str(thing) == text
    with_array = kd.losses.SoftTarget(target=kd.targets.ClassSimilarity(np.eye(50)))
    distiller = kd.Distiller(
        linear("student"), linear("teacher"), terms=[kd.Term(kd.losses.SoftTarget())]
    )
    assert str(distiller) == (
        "Distiller(student='student', teacher='teacher', label_weight=1.0, "
        "terms={soft_target: 1.0})"
    )
    assert len(repr(with_array)) < 120
    assert len(repr(scheduled())) < 400
