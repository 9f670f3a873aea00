"""A teacher whose layers keep a state of their own is refused before the first step."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.distillers import first_look

X = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")


class Counter(layers.Layer):
    """Multiply by the number of calls, in training form alone if so told."""

    def __init__(self, only_training=False, **kwargs):
        super().__init__(**kwargs)
        self.only_training = only_training

    def build(self, shape):
        self.count = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="count"
        )

    def call(self, x, training=False):
        if training or not self.only_training:
            self.count.assign_add(1.0)
        return x * self.count


class Draws(layers.Layer):
    """Add noise, in inference form too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seed)


def teacher(layer):
    return keras.Sequential(
        [keras.Input((5,)), keras.Sequential([layer]), layers.Dense(3)], name="t"
    )


def distiller(taught_by):
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    made = kd.Distiller(student, taught_by, label_weight=0.0)
    made.compile(keras.optimizers.SGD(0.0))
    return made


def run(taught_by, how):
    made = distiller(taught_by)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "fit":
            return made.fit(X, batch_size=12, epochs=3, verbose=0).history[
                "soft_target"
            ]
        return [made.train_on_batch(X, return_dict=True)["soft_target"] for _ in "abc"]


@pytest.mark.parametrize("how", ["fit", "batches"])
@pytest.mark.parametrize("kind", ["one", "ensemble", "portions"])
def test_a_state_of_its_own_is_refused(kind, how):
    model = teacher(Counter())
    model(X)
    kinds = {
        "one": lambda: model,
        "ensemble": lambda: kd.EnsembleTeacher([teacher(Counter(True)), model]),
        "portions": lambda: kd.Teacher(model, portions=2),
    }
    taught_by = kinds[kind]()
    before = float(model.layers[0].layers[0].count)
    with pytest.raises(ValueError, match=r"'t' assigns .*count.*if training:"):
        run(taught_by, how)
    assert float(model.layers[0].layers[0].count) == before


def test_a_state_of_training_alone_is_left():
    model = teacher(Counter(True))
    found = run(model, "fit")
    assert float(model.layers[0].layers[0].count) == 1.0
    assert found == pytest.approx([found[0]] * 3)


def test_random_layers_draw_anew():
    found = run(teacher(Draws()), "fit")
    assert len({round(float(value), 6) for value in found}) == 3


def test_a_cache_refuses_a_state_of_its_own(tmp_path):
    """Before the first shard: its values would depend on the order of the samples."""
    samples = kd.data.Samples(X, np.zeros(12, "int32"))
    cached = kd.CachedTeacher(tmp_path / "cache", teacher(Counter()))
    with pytest.raises(ValueError, match=r"assigns to its variables.*count"):
        cached.build(samples, verbose=0)
    assert not (tmp_path / "cache").exists()
    cached = kd.CachedTeacher(tmp_path / "cache", teacher(Counter(only_training=True)))
    cached.build(samples, verbose=0)


def test_several_workers_find_a_state_by_shapes_alone(monkeypatch):
    monkeypatch.setattr(first_look, "worker", lambda: (0, 2))
    counts = teacher(Counter())
    with pytest.raises(ValueError, match=r"assigns to its variables.*count"):
        distiller(counts).check_fit((X,))
    distiller(teacher(Counter(only_training=True))).check_fit((X,))
    distiller(teacher(Draws())).check_fit((X,))
