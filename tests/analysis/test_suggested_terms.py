"""Suggested terms: what they are for each task and pair, and that a student learns."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.analysis.test_suggested_weights import LOSS


def conv(width, outputs=3, name=None):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.MaxPooling2D(name="half")(x)
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name="last")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(outputs)(x), name=name)


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (LOSS, kd.losses.SoftTarget),
        (keras.losses.BinaryCrossentropy(from_logits=True), kd.losses.BinarySoftTarget),
        ("mse", kd.losses.OutputRegression),
        (None, kd.losses.SoftTarget),
    ],
)
def test_the_response_follows_the_task(loss, kind):
    response, *features = kd.suggest_terms(conv(2), conv(3), loss=loss)
    assert type(response.loss) is kind
    assert {term.weight for term in (response, *features)} == {"balanced"}
    assert {type(term.loss) for term in features} == {
        kd.losses.AttentionMap,
        kd.losses.DistanceRelation,
    }


def test_the_teachers_loss_shows_the_task_and_one_output_is_a_label():
    teacher = conv(3)
    teacher.compile("sgd", "mse")
    (first, *_) = kd.suggest_terms(conv(2), teacher)
    assert type(first.loss) is kd.losses.OutputRegression
    (first, *_) = kd.suggest_terms(conv(2, 1), conv(3, 1))
    assert type(first.loss) is kd.losses.BinarySoftTarget


def test_lines_are_the_terms():
    terms = kd.suggest_terms(conv(2), conv(3), loss=LOSS)
    pasted = eval(f"[{terms}]", {"kd": kd})
    assert [t.get_config() for t in pasted] == [t.get_config() for t in terms]


def test_models_that_share_no_layers_get_a_response_alone():
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    net = keras.Model(inputs, keras.layers.Dense(3)(flat))
    assert len(kd.suggest_terms(net, conv(3))) == 1


def test_a_student_learns_by_them():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 96)
    x = rng.normal(size=(96, 8, 8, 1)) * 0.3
    x[np.arange(96), 2 * y, 2 * y] += 3.0
    x = x.astype("float32")
    teacher, student = conv(6, name="teacher"), conv(4, name="student")
    teacher.compile(keras.optimizers.Adam(0.02), LOSS, metrics=["accuracy"])
    teacher.fit(x, y, epochs=25, verbose=0)
    terms = kd.suggest_terms(student, teacher, loss=LOSS)
    distiller = kd.Distiller(student, teacher, terms=terms)
    distiller.compile(keras.optimizers.Adam(0.02), LOSS, metrics=["accuracy"])
    logs = distiller.fit(x, y, epochs=25, verbose=0).history
    assert logs["accuracy"][-1] > 0.9
    for name in ("soft_target", "pool"):
        assert logs[name][-1] < 0.5 * logs[name][0], name
