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


def several(name, keys=("kind", "box"), as_dict=False):
    """Return a model of three classes and two values, behind one hidden vector."""
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(6, activation="relu", name="hidden")(inputs)
    outputs = [
        keras.layers.Dense(n, name=k)(hidden) for k, n in zip(keys, (3, 2), strict=True)
    ]
    if as_dict:
        outputs = dict(zip(("kind", "box"), outputs, strict=True))
    return keras.Model(inputs, outputs, name=name)


@pytest.mark.parametrize(
    ("make", "taps"),
    [
        (several, ["logits/kind", "logits/box"]),
        (lambda name: several(name, as_dict=True), ["logits/kind", "logits/box"]),
        (
            lambda name: several(name, (f"{name}1", f"{name}2")),
            ["logits/0", "logits/1"],
        ),
    ],
    ids=["list", "dict", "other names"],
)
def test_each_of_several_outputs_has_a_term_and_is_no_feature(make, taps):
    student, teacher = make("student"), make("teacher")
    as_dict = isinstance(student.output, dict)
    losses = {"kind": LOSS, "box": "mse"} if as_dict else [LOSS, "mse"]
    terms = kd.suggest_terms(student, teacher, loss=losses)
    kinds = kd.losses.SoftTarget, kd.losses.OutputRegression, kd.losses.DistanceRelation
    assert [type(term.loss) for term in terms] == list(kinds)
    found = [(str(*term.student), str(*term.teacher)) for term in terms]
    expected = [(tap, tap) for tap in taps]
    assert found == [*expected, ("hidden", "hidden")]
    pasted = eval(f"[{terms}]", {"kd": kd})
    assert [t.get_config() for t in pasted] == [t.get_config() for t in terms]
    distiller = kd.Distiller(student, teacher, terms=terms)
    distiller.compile("sgd", losses)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    labels = [np.arange(8) % 3, x[:, :2]]
    labels = dict(zip(("kind", "box"), labels, strict=True)) if as_dict else labels
    assert np.isfinite(distiller.fit(x, labels, verbose=0).history["loss"]).all()


def test_the_teachers_losses_show_the_tasks_of_several_outputs():
    teacher = several("teacher")
    teacher.compile("sgd", {"kind": LOSS})
    terms = kd.suggest_terms(several("student"), teacher)
    assert [term.name for term in terms] == ["soft_target_kind", "hidden"]


def test_several_outputs_need_losses_and_a_teacher_that_has_them():
    with pytest.raises(
        ValueError, match=r"'student' has the outputs \['kind', 'box'\]"
    ):
        kd.suggest_terms(several("student"), several("teacher"))
    one = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="teacher")
    with pytest.raises(ValueError, match=r"the same outputs.*'teacher' has one"):
        kd.suggest_terms(several("student"), one, loss=[LOSS, "mse"])


def test_a_subclassed_model_of_one_output_predicts_a_label():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.last = keras.layers.Dense(4), keras.layers.Dense(1)

        def call(self, x):
            return self.last(self.hidden(x))

    x = np.zeros((2, 3), "float32")
    nets = [Net(), Net()]
    for net in nets:
        net(x)
    (first, *_) = kd.suggest_terms(*nets, student_input=x, teacher_input=x)
    assert type(first.loss) is kd.losses.BinarySoftTarget
