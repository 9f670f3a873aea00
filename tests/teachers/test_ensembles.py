"""Ensembles that predict, and their members as teachers of single terms."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import linear, points, weights

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def members():
    keras.utils.set_random_seed(1)
    return [linear(f"member{i}") for i in range(3)]


def averaged(logits, average, fractions, temperature=1.0):
    if average == "geometric":
        return softmax(
            sum(w * z for w, z in zip(fractions, logits, strict=True)), temperature
        )
    return sum(
        w * softmax(z, temperature) for w, z in zip(fractions, logits, strict=True)
    )


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_the_prediction_is_the_average(average, tmp_path):
    nets, (x, _) = members(), points()
    ensemble = kd.Ensemble(nets, average, weights=[1.0, 1.0, 2.0])
    logits = [net.predict(x, verbose=0) for net in nets]
    expected = averaged(logits, average, [0.25, 0.25, 0.5])
    found = ensemble.predict(x, verbose=0)
    np.testing.assert_allclose(softmax(found), expected, atol=1e-6)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), found)


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_it_teaches_as_its_members_at_the_losss_temperature(average):
    nets, (x, y) = members(), points()
    ensemble = kd.Ensemble(nets, average)
    student = linear("student")
    w, b = weights(student)
    distiller = kd.Distiller(
        student, ensemble, terms=[kd.Term(kd.losses.SoftTarget(2.0), weight=1.0)]
    )
    distiller.compile(keras.optimizers.SGD(0.5))
    distiller.fit(x, y, batch_size=12, verbose=0)
    logits = [net.predict(x, verbose=0) for net in nets]
    target = averaged(logits, average, [1 / 3] * 3, 2.0)
    gradient = 2.0 * (softmax(x @ w + b, 2.0) - target) / len(x)
    np.testing.assert_allclose(weights(student)[0], w - 0.5 * x.T @ gradient, atol=1e-6)


def test_a_term_of_one_member_alone():
    """Two terms on two members are the update of both soft targets, by hand."""
    nets, (x, y) = members(), points()
    student = linear("student")
    w, b = weights(student)
    terms = [
        kd.Term(
            kd.losses.SoftTarget(t), teacher=f"{m}/logits", weight=v, name=f"of_{m}"
        )
        for m, t, v in ((0, 1.0, 0.3), (2, 4.0, 0.7))
    ]
    distiller = kd.Distiller(student, kd.EnsembleTeacher(nets), terms=terms)
    distiller.compile(keras.optimizers.SGD(0.5))
    distiller.fit(x, y, batch_size=12, verbose=0)
    gradient = 0.0
    for m, t, v in ((0, 1.0, 0.3), (2, 4.0, 0.7)):
        target = softmax(nets[m].predict(x, verbose=0), t)
        gradient += v * t * (softmax(x @ w + b, t) - target) / len(x)
    np.testing.assert_allclose(weights(student)[0], w - 0.5 * x.T @ gradient, atol=1e-6)


def test_bad_members():
    with pytest.raises(ValueError, match="two or more different"):
        kd.Ensemble([linear("one")])
    with pytest.raises(ValueError, match="average is"):
        kd.Ensemble([linear("a"), linear("b")], "median")
    with pytest.raises(ValueError, match="same classes"):
        kd.Ensemble([linear("a"), linear("b", classes=4)])(points()[0])
    other = kd.EnsembleTeacher([linear("a"), linear("b")])
    with pytest.raises(ValueError, match="member 0 to 1"):
        term = kd.Term(kd.losses.SoftTarget(), teacher="5/logits")
        kd.Distiller(linear("c"), other, terms=[term])


def test_members_that_end_in_probabilities():
    inputs = keras.Input((4,))
    nets = [
        keras.Model(inputs, keras.layers.Dense(3, "softmax")(inputs), name=f"sure{i}")
        for i in range(2)
    ]
    with pytest.raises(ValueError, match="The member 'sure0' ends in probabilities"):
        kd.Ensemble(nets)
