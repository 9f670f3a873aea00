"""A teacher of one's own, and what it declares to lack."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.teachers.base_teacher import HEAD, INPUT_GRADIENT, NORM

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = (np.arange(32) % 3).astype("int32")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SHARES = np.array([0.5, 0.3, 0.2], "float32")


class Shares(kd.BaseTeacher):
    """Knows how frequent each class is, and nothing of the sample."""

    def __call__(self, inputs, taps, scores=None):
        rows = ops.repeat(np.log(SHARES)[None], ops.shape(inputs)[0], axis=0)
        return dict.fromkeys(taps, rows)


def net():
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, "relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="head")(hidden), name="student")


def test_a_student_learns_from_it():
    """With labels left out, the student predicts the shares, whatever the sample."""
    distiller = kd.Distiller(net(), Shares(), label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.05))
    history = distiller.fit(X, epochs=60, batch_size=16, verbose=0).history
    assert history["soft_target"][-1] < 0.05 * history["soft_target"][0]
    logits = distiller.predict(X, verbose=0)
    found = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found.mean(0), SHARES, atol=0.05)


@pytest.mark.parametrize(
    "make, said",
    [
        (
            lambda: kd.Term(
                kd.losses.Jacobian(), *[kd.Tap.input_gradient("first_class")] * 2
            ),
            "gradient",
        ),
        (
            lambda: kd.Term(kd.losses.MarginActivation(), "hidden", "hidden"),
            "normalization",
        ),
        (
            lambda: kd.Term(
                kd.losses.VocabularySoftTarget(), *[kd.Tap("head", side="input")] * 2
            ),
            "last layer",
        ),
    ],
    ids=["gradient", "norm", "head"],
)
def test_what_it_lacks_is_refused_at_once(make, said):
    term = make()
    with pytest.raises(ValueError, match=f"This teacher has no .*{said}"):
        kd.Distiller(net(), Shares(), terms=[term])


def test_what_others_lack_is_declared():
    assert set(kd.BaseTeacher.lacks) == {INPUT_GRADIENT, NORM, HEAD}
    assert set(kd.EnsembleTeacher.lacks) == {INPUT_GRADIENT, HEAD}
    assert set(kd.CachedTeacher.lacks) == {INPUT_GRADIENT, NORM, HEAD}
    assert not kd.Teacher.lacks
    model = net()
    assert set(kd.Teacher(model, portions=2).lacks) == {INPUT_GRADIENT}
    assert not kd.Teacher(model).lacks


def test_a_need_that_nobody_provides_is_refused():
    class Curious(kd.losses.Hint):
        needs = ("weather",)

    with pytest.raises(ValueError, match=r"Curious needs \['weather'\].*labels"):
        kd.Term(Curious())


def test_a_match_that_is_a_string_is_refused():
    class Old(kd.losses.Hint):
        match = "all"

    with pytest.raises(ValueError, match=r"kd\.adapters\.Match.*got 'all'"):
        kd.Term(Old())
