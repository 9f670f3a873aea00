"""The private hooks of Keras's trainers: when they are called, and what they do."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill._backend.keras_trainer import (
    LowerIsBetter,
    TrainerHooks,
    compiled_loss,
    strategy_of,
)

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
X = np.arange(24, dtype="float32").reshape(12, 2) / 10
Y = np.sin(X.sum(1, keepdims=True))
KERNEL = np.array([[0.5], [-1.0]], "float32")


class Recorded(TrainerHooks, keras.Model):
    """One kernel; records the inputs of `build_state` and the logs of epochs."""

    def __init__(self, penalty=None):
        super().__init__()
        self.dense = keras.layers.Dense(1, use_bias=False, kernel_regularizer=penalty)
        self.dense.build((None, 2))
        self.dense.kernel.assign(KERNEL)
        self.built = True
        self.batches, self.epochs = [], []

    def call(self, x):
        return self.dense(x)

    def build_state(self, batch):
        if batch is not None:
            self.batches.append(batch[0])
        super().build_state(batch)

    def epoch_logs(self, logs):
        logs = super().epoch_logs(logs)
        self.epochs.append({name: float(value) for name, value in logs.items()})
        return {**logs, "epoch_logs": float(len(self.epochs))}


def make(penalty=None, rate=0.0):
    model = Recorded(penalty)
    # The optimizer's momentum is built with it.
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    model.compile(optimizer, "mse", metrics=["mae"], weighted_metrics=[])
    return model


def errors():
    """Return the mean squared and the mean absolute error at the initial kernel."""
    difference = X @ KERNEL - Y
    return (difference**2).mean(), np.abs(difference).mean()


def test_history_and_evaluation_have_what_epoch_logs_returns():
    model = make()
    history = model.fit(
        X, Y, batch_size=4, epochs=2, validation_data=(X, Y), verbose=0
    ).history
    squared, absolute = errors()
    expected = {"loss": squared, "mae": absolute}
    # Of training and validation, in each epoch.
    assert model.epochs == [pytest.approx(expected, rel=1e-4)] * 4
    assert history["epoch_logs"] == [1.0, 3.0]
    assert history["val_epoch_logs"] == [2.0, 4.0]
    np.testing.assert_allclose(history["loss"], squared, rtol=1e-4)
    found = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert found["epoch_logs"] == 5.0


def batches_of(train):
    """Return the inputs that `build_state` got while a model was trained."""
    model = make(rate=0.01)
    train(model)
    return [ops.convert_to_numpy(x).tolist() for x in model.batches]


def test_when_keras_builds_the_state():
    """On TensorFlow without a strategy the first trace does."""
    ways = [
        lambda model: model.fit(X, Y, batch_size=4, shuffle=False, verbose=0),
        lambda model: model.evaluate(X, Y, batch_size=4, verbose=0),
        lambda model: model.train_on_batch(X[:4], Y[:4]),
        lambda model: model.test_on_batch(X[:4], Y[:4]),
    ]
    expected = [] if ON_TENSORFLOW else [X[:4].tolist()]
    assert [batches_of(train) for train in ways] == [expected] * 4


def test_under_a_strategy_the_first_replicas_part_builds_the_state(two_replicas):
    with two_replicas.scope():
        model = make(rate=0.01)
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    # Keras itself would take the mean over the replicas.
    (found,) = model.batches
    np.testing.assert_array_equal(found, X[:2])
    # No batch was lost to it.
    assert ops.convert_to_numpy(model.optimizer.iterations) == 3


@pytest.mark.parametrize("kind", ["tensors", "specs"])
def test_build_state_builds_metrics_loss_and_optimizer(kind):
    model = make()
    batch = ops.convert_to_tensor(X), ops.convert_to_tensor(Y)
    if kind == "specs":
        batch = tuple(keras.KerasTensor(x.shape, x.dtype) for x in (X, Y))
    assert not model.optimizer.built and len(model.optimizer.variables) == 2
    before = len(model.metrics_variables)
    model.build_state((*batch, None))
    assert model.optimizer.built
    momenta = model.optimizer.variables[2:]
    assert [tuple(x.shape) for x in momenta] == [(2, 1)]
    # The sum and the count of the metric; the loss had them.
    assert len(model.metrics_variables) == before + 2
    assert set(model.get_metrics_result()) == {"loss", "mae"}
    # No step was taken.
    np.testing.assert_array_equal(ops.convert_to_numpy(model.dense.kernel), KERNEL)
    assert int(model.optimizer.iterations) == 0
    built = [*model.optimizer.variables, *model.metrics_variables]
    model.fit(X, Y, batch_size=4, verbose=0)
    after = [*model.optimizer.variables, *model.metrics_variables]
    assert [id(x) for x in after] == [id(x) for x in built]


class Unreadable:
    def __iter__(self):
        raise RuntimeError("a batch was read")


def test_no_batch_is_read_for_a_state_that_is_built():
    """Reading one draws from the generator that shuffles the next epoch on torch."""
    model = make()
    with pytest.raises(RuntimeError, match="a batch was read"):
        model._symbolic_build(iterator=Unreadable())
    model.fit(X, Y, batch_size=4, verbose=0)
    model._symbolic_build(iterator=Unreadable())


def test_a_metric_that_is_not_built_needs_a_batch():
    model = make()
    model.fit(X, Y, batch_size=4, verbose=0)
    model.compile("sgd", "mse", metrics=["mae"])
    with pytest.raises(RuntimeError, match="a batch was read"):
        model._symbolic_build(iterator=Unreadable())


def test_a_model_without_a_scope_has_no_strategy():
    assert strategy_of(make()) is None
    assert strategy_of(keras.Sequential([keras.layers.Dense(2)])) is None


def test_strategy_of_is_that_of_the_scope(two_replicas):
    outside = make()
    with two_replicas.scope():
        inside = make()
        assert strategy_of(outside) is None
    assert strategy_of(inside) is two_replicas


@pytest.mark.parametrize("weights", [None, np.arange(12, dtype="float32")])
def test_compiled_loss_is_numpys_without_penalties(weights):
    model = make(penalty=keras.regularizers.L2(0.5))
    tensors = [ops.convert_to_tensor(x) for x in (X, Y)]
    prediction = model(tensors[0])
    sample_weight = None if weights is None else ops.convert_to_tensor(weights)
    squares = ((X @ KERNEL - Y) ** 2)[:, 0]
    expected = squares.mean() if weights is None else (weights * squares).mean()
    found = compiled_loss(model, tensors[1], prediction, sample_weight)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    whole = model.compute_loss(*tensors, prediction, sample_weight)
    penalty = 0.5 * (KERNEL**2).sum()
    assert float(whole) == pytest.approx(expected + penalty, rel=1e-5)


def test_compiled_loss_of_no_output_is_zero():
    """Where `compile` has a loss for each output, and each is None."""
    inputs = keras.Input((2,))
    outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in "ab"}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": None, "b": None})
    labels = dict.fromkeys("ab", ops.convert_to_tensor(Y))
    found = compiled_loss(model, labels, model(ops.convert_to_tensor(X)), None)
    assert float(found) == 0.0


class Total(LowerIsBetter):
    def __init__(self):
        super().__init__(["error"], "total")
        self.sum = self.add_variable(shape=(), initializer="ones", name="sum")

    def result(self):
        return ops.convert_to_tensor(self.sum)


def test_a_callback_in_auto_mode_wants_it_low():
    model = make()
    model.total = Total()
    stop = keras.callbacks.EarlyStopping("val_error")
    stop.set_model(model)
    stop._set_monitor_op()
    assert stop.monitor_op is ops.less
    model.total.reset_state()
    assert float(model.total.result()) == 0.0
