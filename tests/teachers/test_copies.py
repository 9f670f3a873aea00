"""Copies of models whose layers are shared with models inside them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.teachers.copies import Copies
from tests import hub_tasks
from tests.backends import hub

TOKENS = np.random.default_rng(0).integers(0, 9, (4, 5))


@keras.saving.register_keras_serializable(package="tests")
class Reversible(layers.Layer):
    """An embedding that also returns logits of its words, as in keras_hub."""

    def __init__(self, words, units, **arguments):
        super().__init__(**arguments)
        self.words, self.units = words, units
        shape = words, units
        self.table = self.add_weight(shape=shape, name="table", initializer="normal")

    def call(self, inputs, reverse=False):
        if reverse:
            return inputs @ ops.transpose(self.table)
        return ops.take(self.table, ops.cast(inputs, "int32"), axis=0)

    def get_config(self):
        return {**super().get_config(), "words": self.words, "units": self.units}


def tied(embedding, first="first", second="second"):
    """Return a language model whose head is the embedding of the model inside it."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Dense(6, "tanh", name=first)(embedding(inputs))
    x = layers.Dense(6, "tanh", name=second)(x)
    backbone = keras.Model(inputs, x, name="backbone")
    inputs = keras.Input((5,), dtype="int32")
    return keras.Model(inputs, embedding(backbone(inputs), reverse=True), name="tied")


def test_a_layer_shared_with_a_model_inside_stays_one():
    keras.utils.set_random_seed(0)
    student = tied(Reversible(9, 6))
    copy = Copies([student]).models[0]
    assert len(copy.variables) == len(student.variables) == 5
    before = ops.convert_to_numpy(student(TOKENS))
    np.testing.assert_array_equal(ops.convert_to_numpy(copy(TOKENS)), before)
    student.variables[0].assign(student.variables[0] + 1.0)
    np.testing.assert_array_equal(ops.convert_to_numpy(copy(TOKENS)), before)


def test_a_mean_of_a_model_with_tied_weights():
    keras.utils.set_random_seed(0)
    student = tied(Reversible(9, 6))
    initial = student.get_weights()
    distiller = kd.Distiller(student, kd.MeanTeacher(student, 0.05))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.5), loss)
    logs = distiller.fit(TOKENS, TOKENS, epochs=2, verbose=0).history
    assert logs["soft_target"][0] == pytest.approx(0.0, abs=1e-6)
    copy = distiller.teacher.copies.models[0].get_weights()
    for mean, first, last in zip(copy, initial, student.get_weights(), strict=True):
        assert np.abs(last - first).max() > 1e-4
        # Of the weights before the second step at least 19/20.
        assert not np.array_equal(mean, first)


class Bare(Reversible):
    """A layer without a configuration."""

    def get_config(self):
        raise NotImplementedError("A Bare has no get_config.")


def test_what_can_not_be_copied_is_named():
    with pytest.raises(
        ValueError, match=r"'tied' can't be copied.*Bare.*configurations"
    ):
        kd.MeanTeacher(tied(Bare(9, 6)))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", hub_tasks.TASKS)
def test_tasks_of_keras_hub(name):
    student, _ = hub_tasks.pair(name)
    features, *_ = hub.preprocessed(student, hub_tasks.data_of(name)[0])
    copy = Copies([student]).models[0]
    found, right = (keras.Model.predict_on_batch(m, features) for m in (copy, student))
    np.testing.assert_array_equal(found, right)
