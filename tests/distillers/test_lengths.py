"""Models that do not take every size are bound to the sizes of the first batch."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd

LONGEST = 8
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 9, (4, 6)).astype("int32")


@keras.saving.register_keras_serializable(package="tests")
class Positions(layers.Layer):
    """Adds a learnt vector to each position, of which there are `LONGEST`."""

    def build(self, input_shape):
        self.table = self.add_weight(shape=(LONGEST, input_shape[-1]), name="table")

    def call(self, x):
        length = ops.shape(x)[1]
        if isinstance(length, int) and length > LONGEST:
            raise ValueError(f"{length} steps are more than {LONGEST}.")
        return x + self.table[:length]

    def compute_output_shape(self, input_shape):
        return input_shape


def net(width, seed=0, length=None):
    """positions, hidden, head; its logits are of the whole sequence."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((length,), dtype="int32")
    x = layers.Embedding(9, width, name="embedding")(tokens)
    x = layers.Dense(width, "tanh", name="hidden")(Positions(name="positions")(x))
    x = layers.Dense(3, name="head")(layers.GlobalAveragePooling1D(name="pool")(x))
    return keras.Model(tokens, x, name=f"net_{width}_{seed}")


def hints():
    return [
        kd.Term(kd.losses.Hint(), "hidden", "hidden"),
        kd.Term(kd.losses.SoftTarget()),
    ]


def fit(distiller, x=TOKENS):
    distiller.compile(keras.optimizers.SGD(0.1))
    return distiller.fit(x, verbose=0).history["loss"][0]


def test_sizes_come_from_the_batch():
    """They are not fixed, as another batch may be shorter; declared ones are as before."""
    distiller = kd.Distiller(net(4), net(6, 1), terms=hints())
    assert distiller.shapes is None and not distiller.built
    fit(distiller)
    assert distiller.shapes["student"] == {
        "hidden": [None, None, 4],
        "logits": [None, 3],
    }
    assert np.isfinite(fit(distiller, TOKENS[:, :3]))
    declared = kd.Distiller(net(4, length=6), net(6, 1, length=6), terms=hints())
    assert declared.shapes["student"]["hidden"] == [None, 6, 4]


def test_taps_are_checked_before_there_is_a_batch():
    with pytest.raises(ValueError, match="no layer 'hiden'"):
        kd.Distiller(
            net(4), net(6, 1), terms=[kd.Term(kd.losses.Hint(), "hiden", "hidden")]
        )
    with pytest.raises(ValueError, match="no layer 'hiden'"):
        kd.Distiller(
            net(4), net(6, 1), terms=[kd.Term(kd.losses.Hint(), "hidden", "hiden")]
        )


def test_predictions_come_before_training():
    student = net(4)
    distiller = kd.Distiller(student, net(6, 1), terms=hints())
    distiller.compile(keras.optimizers.SGD(0.1))
    expected = student.predict(TOKENS, verbose=0)
    np.testing.assert_allclose(
        distiller.predict(TOKENS, verbose=0), expected, atol=1e-6
    )
    assert np.isfinite(fit(distiller))


def test_a_saved_distiller_goes_on_at_another_length(tmp_path):
    teacher = net(6, 1)
    distiller = kd.Distiller(net(4), teacher, terms=hints())
    fit(distiller)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.shapes == distiller.shapes
    loaded.set_teacher(teacher)
    x = TOKENS[:, :5]
    assert fit(loaded, x) == pytest.approx(fit(distiller, x), rel=1e-5)


class Subclassed(keras.Model):
    """Declares no inputs."""

    def __init__(self, width):
        super().__init__()
        self.embedding = layers.Embedding(9, width, name="embedding")
        self.hidden = layers.Dense(width, name="hidden")
        self.head = layers.Dense(3, name="head")

    def call(self, tokens):
        return self.head(ops.mean(self.hidden(self.embedding(tokens)), axis=1))


def test_another_teacher_may_be_bound_at_another_length():
    student, first, second = Subclassed(4), Subclassed(5), Subclassed(5)
    for model in (student, first, second):
        model(TOKENS)
    distiller = kd.Distiller(student, first, terms=hints())
    fit(distiller)
    distiller.set_teacher(second)
    assert np.isfinite(fit(distiller, TOKENS[:, :4]))
    third = Subclassed(7)
    third(TOKENS)
    distiller.set_teacher(third)
    with pytest.raises(ValueError, match="built for a teacher whose 'hidden'"):
        fit(distiller)


def test_other_distillers():
    mutual = kd.MutualDistiller([net(4), net(6, 1)], hints())
    assert np.isfinite(fit(mutual))
    student = net(4)
    assert np.isfinite(
        fit(kd.Distiller(student, kd.MeanTeacher(student), terms=hints()))
    )
    own = kd.SelfDistiller(net(4), ["positions"])
    own.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = own.fit(TOKENS, np.arange(4) % 3, verbose=0).history
    assert np.isfinite(history["loss"][0]) and own.classes == 3
    ensemble = kd.EnsembleTeacher([net(6, 1), net(5, 2)])
    term = kd.Term(kd.losses.Hint(), "hidden", "1/hidden")
    assert np.isfinite(fit(kd.Distiller(net(4), ensemble, terms=[term])))


def test_shapes_of_a_model_that_does_not_take_every_size():
    model, tap = net(4), kd.Tap("hidden")
    specs = keras.KerasTensor((None, 6), "int32")
    assert kd.taps.shapes_of(model, specs, [tap]) == {"hidden": [None, 6, 4]}
    found = kd.taps.shapes_of(model, model.inputs[0], [tap])["hidden"]
    assert found[0] is None and found[2] == 4


def words(masks=False):
    """words, hidden, and logits of the mean; no length is declared."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 4, mask_zero=masks, name="words")(tokens)
    x = layers.Dense(4, "tanh", name="hidden")(x)
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def hint_of(distiller, x, y=None):
    """Return the hint of a step that changes nothing."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.0), loss=None if y is None else loss)
    logs = distiller.fit(x, y, verbose=0).history
    return next(value[0] for name, value in logs.items() if name.startswith("hint"))


def test_a_model_that_teaches_itself_takes_any_length():
    distiller = kd.SelfDistiller(words(masks=True), ["words"], features="hidden")
    tokens, labels = TOKENS + (TOKENS == 0), np.array([0, 1, 2, 0])
    found = [
        hint_of(distiller, np.pad(tokens[:, :4], ((0, 0), (0, more))), labels)
        for more in (0, 2, 5)
    ]
    np.testing.assert_allclose(found, found[0], rtol=1e-6)
    assert distiller.shapes["teacher"]["hidden"] == [None, None, 4]


class Ones(kd.BaseTeacher):
    """A teacher without models."""

    def __call__(self, inputs, taps, scores=None):
        steps = ops.shape(inputs)
        return {tap: ops.ones((*steps, 4)) for tap in taps}


def given(x):
    return {"tokens": x, "hidden": np.ones((*x.shape, 4), "float32")}


def ones(x):
    return {"hidden": np.ones((*x.shape, 4), "float32")}


WITHOUT_MODELS = {
    "own": (Ones, lambda x: x),
    "given": (lambda: kd.GivenTeacher(hidden="hidden"), given),
    "function": (
        lambda: kd.FunctionTeacher(ones, shapes={"hidden": (None, 4)}),
        lambda x: x,
    ),
}


@pytest.mark.parametrize("kind", WITHOUT_MODELS)
def test_sizes_of_a_teacher_without_models_vary_as_the_students(kind):
    make, data = WITHOUT_MODELS[kind]
    if kind == "function" and keras.backend.backend() == "jax":
        with pytest.raises(ValueError, match=r"\['hidden'\].*a size of None"):
            make()
        return
    student = words()
    term = kd.Term(kd.losses.Hint(), "hidden", "hidden")
    distiller = kd.Distiller(student, make(), terms=[term], label_weight=0.0)
    hidden = keras.Model(student.input, student.get_layer("hidden").output)
    for steps in (6, 4):
        tokens = TOKENS[:, :steps]
        features = np.asarray(hidden.predict(tokens, verbose=0), "float64")
        expected = np.mean(np.square(features - 1.0)) / 2
        found = hint_of(distiller, data(tokens))
        assert found == pytest.approx(expected, rel=1e-5)
