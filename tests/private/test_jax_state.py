"""The state that Keras's training loop holds on JAX, against updates computed by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill._backend import jax_state
from tests import processes

ON_JAX = keras.backend.backend() == "jax"
on_jax = pytest.mark.skipif(not ON_JAX, reason="the state is JAX's")
X = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]], "float32")
Y = np.array([[1.0], [0.0], [2.0]], "float32")
START = np.array([[0.3], [-0.2]], "float32")
RATE = 0.1


@pytest.mark.skipif(ON_JAX, reason="the tests below run")
@pytest.mark.long
def test_these_tests_pass_on_jax():
    printed = processes.run("pytest", "jax", "-n", "0", "-q", __file__)
    assert "6 passed" in printed


class Linear(keras.Model):
    """One kernel whose activity is penalized."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(
            1, use_bias=False, activity_regularizer=keras.regularizers.L2(0.1)
        )
        self.build((None, 2))
        self.dense.kernel.assign(START)

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.dense(x)


def compiled(model):
    model.compile(keras.optimizers.SGD(RATE), "mse")
    return model


def loss_and_update(kernel):
    """Return the penalty, the mean squared error, and the kernel after a step of SGD."""
    z = X @ kernel
    gradient = 2 * X.T @ (z - Y) / 3 + 0.2 * X.T @ z / 3
    return 0.1 * (z**2).sum() / 3, ((z - Y) ** 2).mean(), kernel - RATE * gradient


def kernel_of(model):
    return ops.convert_to_numpy(model.dense.kernel)


class RaisesAfterTheStep(Linear):
    """Take a step, keep its state, and raise an error."""

    steps = 0

    def make_train_function(self, force=False):
        super().make_train_function(force)
        step = self.train_function

        def raising(state, data):
            _, state = step(state, data)
            self.steps += 1
            jax_state.keep_state(self, state)
            raise KeyError("the step failed")

        self.train_function = raising


@on_jax
def test_keep_state_leaves_the_weights_after_the_step():
    model = compiled(RaisesAfterTheStep())
    with pytest.raises(KeyError, match="the step failed"):
        model.fit(X, Y, batch_size=3, verbose=0)
    assert model.steps == 1 and int(model.optimizer.iterations) == 1
    np.testing.assert_allclose(kernel_of(model), loss_and_update(START)[2], rtol=1e-5)


class LossesOfRun(Linear):
    """Count the penalties of the run alone."""

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        self.found = jax_state.losses_of_run(self)
        return sum(self.found)


@on_jax
def test_losses_of_run_are_the_penalties_of_the_stateless_run():
    model = compiled(LossesOfRun())
    assert jax_state.losses_of_run(model) == []
    logs = model.test_on_batch(X, Y, return_dict=True)
    assert len(model.found) == 1
    assert logs["loss"] == pytest.approx(loss_and_update(START)[0], rel=1e-5)
    assert jax_state.losses_of_run(model) == []


@pytest.mark.skipif(ON_JAX, reason="JAX has penalties of a stateless run")
def test_losses_of_run_are_empty_elsewhere():
    model = compiled(Linear())
    model.test_on_batch(X, Y)
    assert len(model.losses) == 1 and jax_state.losses_of_run(model) == []


@on_jax
def test_values_and_state_are_inverse():
    model = compiled(Linear())
    model.test_on_batch(X, Y)
    kinds = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.metrics_variables,
    )
    state = tuple([v.value + 1 for v in kind] for kind in kinds)
    values = jax_state.values_of(model, state)
    np.testing.assert_array_equal(values[id(model.dense.kernel)], START + 1)
    found = jax_state.state_of(model, values)
    assert [list(map(id, kind)) for kind in found] == [
        list(map(id, kind)) for kind in state
    ]


class Reads(keras.callbacks.Callback):
    """Read the kernel after each step, once the variables are synchronized."""

    def __init__(self, model):
        super().__init__()
        # `self.model` would synchronize them itself.
        self.read, self.found = model, []

    def on_train_batch_end(self, batch, logs=None):
        jax_state.sync_variables(self.read)
        self.found.append(kernel_of(self.read))


@on_jax
def test_sync_variables_within_fit():
    reads = Reads(compiled(Linear()))
    reads.read.fit(X, Y, batch_size=3, epochs=3, verbose=0, callbacks=[reads])
    expected = START
    for found in reads.found:
        expected = loss_and_update(expected)[2]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(reads.found) == 3


@on_jax
def test_the_loss_by_hand_is_that_of_keras():
    logs = compiled(Linear()).train_on_batch(X, Y, return_dict=True)
    penalty, error, _ = loss_and_update(START)
    assert logs["loss"] == pytest.approx(penalty + error, rel=1e-5)


class Failing(Linear):
    """A model whose evaluation fails, in which Keras leaves variables without values."""

    def test_step(self, state, data):
        raise ValueError("an error in a trace")

    def make_test_function(self, force=False):
        super().make_test_function(force)
        self.test_function = jax_state.restoring(self, self.test_function)


@on_jax
def test_weights_are_back_after_an_evaluation_that_fails():
    model = compiled(Failing())
    with pytest.raises(ValueError, match="in a trace"):
        model.evaluate(X, Y, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.dense.kernel), START)
