"""Soft targets at a learnt temperature against NumPy in float64."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_distill as kd
from keras_distill.adapters import LearnedTemperature
from keras_distill.losses import CurriculumTemperature
from tests.formulas import softmax

numbers = ops.convert_to_numpy


def divergence(teacher, student, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def with_temperature(logits, temperature):
    return np.concatenate([logits, np.full((*logits.shape[:-1], 1), temperature)], -1)


@pytest.fixture
def logits():
    return 2 * np.random.default_rng(0).normal(size=(2, 4, 5))


@pytest.mark.parametrize("temperature", [1.0, 3.0, 16.0])
def test_equals_numpy(logits, temperature):
    teacher, student = logits
    loss = CurriculumTemperature(10, reduction=None)
    found = loss(teacher, with_temperature(student, temperature), step=3)
    np.testing.assert_allclose(found, divergence(*logits, temperature), rtol=1e-4)


@pytest.mark.parametrize("temperature", [3.0, 16.0])
@pytest.mark.parametrize(
    ("step", "strength"), [(0, 0.0), (2, 0.0954915), (5, 0.5), (10, 1.0), (99, 1.0)]
)
def test_the_gradient_by_the_temperature_is_reversed(
    logits, temperature, step, strength, gradient, central_difference
):
    teacher, student = logits
    loss = CurriculumTemperature(10)
    full = with_temperature(student, temperature)
    grad = gradient(lambda z: loss(teacher, z, step=step), full)

    def formula(z):
        values = [
            divergence(t, row[:-1], row[-1]) for t, row in zip(teacher, z, strict=True)
        ]
        return np.mean(values)

    expected = central_difference(formula, full)
    np.testing.assert_allclose(grad[:, :-1], expected[:, :-1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        grad[:, -1], -strength * expected[:, -1], rtol=1e-3, atol=1e-5
    )


def test_classes_left_out_on_both_sides_add_nothing(logits, gradient):
    left_out = logits.copy()
    left_out[..., 4] = -np.inf
    teacher, student = left_out
    loss = CurriculumTemperature(1, reduction=None)
    full = with_temperature(student, 2.0)
    expected = divergence(*logits[..., :4], 2.0)
    np.testing.assert_allclose(loss(teacher, full, step=1), expected, rtol=1e-4)
    grad = gradient(lambda z: CurriculumTemperature(1)(teacher, z, step=1), full)
    assert np.all(np.isfinite(grad)) and np.all(grad[:, 4] == 0.0)


def test_the_adapter_appends_the_temperature(tmp_path):
    model = keras.Sequential([keras.Input((3,)), LearnedTemperature(2.0, 10.0)])
    x = np.arange(6.0).reshape(2, 3)
    found = model.predict(x, verbose=0)
    expected = with_temperature(x, 2 + 10 / (1 + np.exp(-1)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    model.layers[0].raw.assign(-2.0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def distiller(steps):
    keras.utils.set_random_seed(0)
    student, teacher = (
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]) for _ in range(2)
    )
    teacher.set_weights([3 * x for x in teacher.get_weights()])
    term = kd.Term(CurriculumTemperature(steps), name="soft")
    made = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    made.compile(keras.optimizers.SGD(0.02))
    return made


def temperature_of(made):
    (raw,) = [w for w in made.trainable_variables if "raw" in w.path]
    return float(numbers(raw))


def test_in_a_distiller_the_temperature_climbs_the_divergence():
    """While the reversal has no strength it stays; then it goes where KD is harder."""
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    labels = np.zeros(64, int)
    made = distiller(steps=10**9)
    made.fit(x, labels, batch_size=64, epochs=3, verbose=0)
    assert temperature_of(made) == pytest.approx(1.0, abs=1e-5)
    made = distiller(steps=1)
    models = made.student, made.teacher.models[0]
    student, teacher = (model.predict(x, verbose=0) for model in models)
    start = 1 + 20 / (1 + np.exp(-1))
    slope = np.mean(divergence(teacher, student, start + 0.1))
    slope -= np.mean(divergence(teacher, student, start - 0.1))
    made.fit(x, labels, batch_size=64, epochs=3, verbose=0)
    assert np.sign(temperature_of(made) - 1.0) == np.sign(slope)


def test_refused():
    with pytest.raises(ValueError, match="5 logits and a temperature; got 5"):
        CurriculumTemperature(10)(np.ones((2, 5)), np.ones((2, 5)), step=0)
    with pytest.raises(ValueError, match="class counts differ"):
        CurriculumTemperature(10).adapters((None, 4), (None, 5))
    with pytest.raises(ValueError, match="span must be 0 to 99"):
        CurriculumTemperature(10, span=200.0)
    with pytest.raises(ValueError, match="steps"):
        CurriculumTemperature(0)
