"""Chains of models: who learns from whom, fresh seeds, resumption, choice."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.linear import linear, points, softmax, weights

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
COMPILED = {"optimizer": keras.optimizers.SGD(0.3), "loss": CROSS_ENTROPY}


def make(place):
    return linear(f"generation{place}")


def chain(generations=3, make=make, **arguments):
    given = {"batch_size": 12, "shuffle": False, "verbose": 0, "compiled": COMPILED}
    return kd.fit_generations(make, generations, *points(), **given | arguments)


def drawn(seed):
    keras.utils.set_random_seed(seed)
    return weights(linear("fresh"))


@pytest.mark.parametrize("label_weight", [0.0, 1.0])
@pytest.mark.parametrize("taught", [False, True])
def test_each_learns_from_the_one_before(label_weight, taught):
    x, y = points()
    labels, first = np.eye(3)[y], None
    if taught:
        keras.utils.set_random_seed(77)
        first = linear("teacher")
    found = chain(teacher=first, label_weight=label_weight, seed=5)
    before = weights(first) if taught else None
    for place, (model, history) in enumerate(found):
        w, b = drawn(5 + place)
        q = softmax(x @ w + b)
        slope = label_weight * (q - labels) if before else q - labels
        if before:
            slope = slope + q - softmax(x @ before[0] + before[1])
        w, b = w - 0.3 * x.T @ slope / 12, b - 0.3 * slope.mean(0)
        np.testing.assert_allclose(weights(model)[0], w, atol=1e-6)
        np.testing.assert_allclose(weights(model)[1], b, atol=1e-6)
        assert ("soft_target" in history) == (before is not None)
        before = weights(model)
    assert type(found[-1].model) is type(linear("a"))


@pytest.mark.parametrize(
    "loss",
    [
        kd.losses.ConfidenceWeightedLabel(),
        kd.losses.SoftTarget(1.0, target=kd.targets.Permuted()),
    ],
    ids=["CWTM", "DKPP"],
)
def test_born_again_without_what_the_teacher_confuses(loss):
    found = chain(2, terms=[kd.Term(loss, weight=1.0)], label_weight=0.0, epochs=30)
    assert found[1].history["loss"][-1] < found[1].history["loss"][0]


def test_generations_come_closer_to_the_one_before():
    x, _ = points()
    first, second = chain(2, epochs=60, label_weight=0.0)
    gap = lambda model, other: np.abs(  # noqa: E731
        softmax(model.predict(x, verbose=0)) - softmax(other.predict(x, verbose=0))
    ).mean()
    untrained = linear("untrained")
    untrained.set_weights(drawn(1))
    assert gap(second.model, first.model) < 0.3 * gap(untrained, first.model)


class Stop(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        if "soft_target" in logs and epoch == 1:
            raise KeyboardInterrupt


def test_interrupted_it_goes_on(tmp_path):
    expected = chain(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        chain(epochs=3, backup=tmp_path, callbacks=[Stop()])
    assert {f.name for f in tmp_path.glob("*.json")} == {"plan.json", "0.json"}
    found = chain(epochs=3, backup=tmp_path)
    for a, b in zip(expected, found, strict=True):
        for one, other in zip(weights(a.model), weights(b.model), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-7)
    assert chain(epochs=3, backup=tmp_path)[2].history == found[2].history


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"generations": 0}, "generations must be 1 or more; got 0"),
        ({"epochs": 0}, "epochs must be 1 or more; got 0"),
        (
            {"make": lambda place: linear(f"g{place}", classes=3 + place)},
            "class counts differ",
        ),
        (
            {"make": lambda place: keras.Sequential([keras.layers.Dense(3)])},
            "not built",
        ),
    ],
)
def test_is_refused_before_the_first_step(arguments, words):
    with pytest.raises(ValueError, match=words):
        chain(**arguments)


def test_assistants_stand_where_steps_are_even():
    assert kd.choose_assistants([0.92, 0.91, 0.86, 0.83, 0.79]) == [2]
    assert kd.choose_assistants([0.9, 0.85, 0.8, 0.7, 0.6], 2) == [2, 3]
    assert kd.choose_assistants([0.9, 0.89, 0.61, 0.6]) == [1]
    with pytest.raises(ValueError, match=r"Cannot choose 2 assistant\(s\) from 1 candidate"):
        kd.choose_assistants([0.9, 0.8, 0.7], 2)


def test_a_loss_of_probabilities_is_refused_before_the_first():
    made = []

    def keep(place):
        made.append(make(place))
        return made[-1]

    compiled = {"loss": "sparse_categorical_crossentropy"}
    with pytest.raises(ValueError, match="takes probabilities"):
        chain(make=keep, compiled=compiled, seed=3)
    for found, expected in zip(weights(made[0]), drawn(3), strict=True):
        np.testing.assert_array_equal(found, expected)
    x, y = points()
    with pytest.raises(ValueError, match="Labels must lie in"):
        kd.fit_generations(make, 2, x, y + 9, compiled=COMPILED, verbose=0)


def test_generations_without_labels_can_be_validated():
    found = chain(2, label_weight=0.0, validation_data=points())
    plain = chain(2, label_weight=0.0)
    assert "val_loss" in found[1].history and "val_loss" not in plain[1].history
    for a, b in zip(weights(found[1].model), weights(plain[1].model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
