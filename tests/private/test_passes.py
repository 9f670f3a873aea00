"""Keras creates as many iterators of a data set in an epoch as resuming expects."""

import keras
import numpy as np
import pytest

from keras_distill._backend.tensorflow_data import passes_per_epoch

tf = pytest.importorskip("tensorflow")


@pytest.mark.long
@pytest.mark.parametrize("executions", [1, 4, 5])
@pytest.mark.parametrize("known", [True, False])
def test_passes_per_epoch(known, executions):
    """Each iterator of a shuffled data set draws its order when it is created."""
    if keras.backend.backend() == "torch" and executions > 1:
        pytest.skip("Keras runs one step per execution on torch")

    def shuffled():
        tf.random.set_seed(1)
        data = tf.data.Dataset.range(10).shuffle(10, seed=3).batch(1)
        data = data.map(lambda x: (tf.cast(x, "float32")[:, None],) * 2)
        return data if known else data.filter(lambda x, y: True)

    class Recorder(keras.layers.Layer):
        def build(self, shape):
            zeros = {"initializer": "zeros", "trainable": False}
            self.seen = self.add_weight(shape=(100,), **zeros)
            self.count = self.add_weight(shape=(), **zeros)

        def call(self, x, training=False):
            if training:
                here = keras.ops.arange(100.0) == keras.ops.convert_to_tensor(
                    self.count
                )
                self.seen.assign(keras.ops.where(here, x[0, 0], self.seen.value))
                self.count.assign(self.count + 1.0)
            return x

    recorder = Recorder()
    model = keras.Sequential([keras.Input((1,)), recorder, keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=executions)
    model.fit(shuffled(), epochs=3, verbose=0)
    seen = keras.ops.convert_to_numpy(recorder.seen.value)
    data = shuffled()
    orders = [[float(x[0, 0]) for x, _ in data] for _ in range(12)]
    count = int(data.cardinality())
    # Keras runs a part of a step more where it learns of the end from the data.
    epoch = int(recorder.count.value) // 3
    begin = [orders.index(list(seen[i * epoch :][:10])) for i in range(3)]
    assert np.diff(begin).tolist() == [passes_per_epoch(count)] * 2
