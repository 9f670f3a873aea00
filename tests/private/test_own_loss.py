"""A model's own loss: with and without penalties, in each thread for itself."""

import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_distill._backend import own_loss

X, Y = np.ones((2, 3), "float32"), np.array([[1.0], [2.0]], "float32")


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        penalty = keras.regularizers.L2(0.5)
        self.out = layers.Dense(
            1, kernel_initializer="ones", kernel_regularizer=penalty
        )

    def call(self, x):
        return self.out(x)

    def compute_loss(self, x, y, y_pred, sample_weight):
        return ops.mean(y_pred - y) + ops.sum(ops.stack(self.losses))


@pytest.fixture
def net():
    net = Net()
    net(X)
    return net


def loss_of(net):
    loss = own_loss.own_loss(net, X, ops.array(Y), net(X), None, training=True)
    return float(ops.convert_to_numpy(loss))


def test_penalties_are_left_out_and_come_back(net):
    assert loss_of(net) == pytest.approx(1.5 + 1.5)
    with own_loss.without_penalties(net):
        assert loss_of(net) == pytest.approx(1.5)
    assert loss_of(net) == pytest.approx(3.0)
    with pytest.raises(KeyError), own_loss.without_penalties(net):
        raise KeyError
    assert loss_of(net) == pytest.approx(3.0)


def test_another_thread_keeps_the_penalties(net):
    found = []
    with own_loss.without_penalties(net):
        thread = threading.Thread(target=lambda: found.append(loss_of(net)))
        thread.start()
        thread.join()
        found.append(loss_of(net))
    assert found == pytest.approx([3.0, 1.5])


def test_penalties_of_a_run_replace_the_models(net):
    with own_loss.with_penalties(net, [ops.array(10.0)]):
        assert loss_of(net) == pytest.approx(11.5)
    with own_loss.with_penalties(net, []):
        assert loss_of(net) == pytest.approx(3.0)
    assert loss_of(net) == pytest.approx(3.0)


def test_metrics_and_loss_are_built_and_no_optimizer(net):
    net.compile("adam", "mse", metrics=["mae"])
    own_loss.build_compiled(net, (X, Y, None))
    assert {metric.name for metric in net.metrics} == {"loss", "compile_metrics"}
    assert len(net.metrics_variables) == 4
    assert not net.optimizer.built
