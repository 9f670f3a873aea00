"""A step as one call: it is the step that Keras would take, and ends with the data."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.training import lean_step
from tests.linear import points

tf = pytest.importorskip("tensorflow", reason="the lean step is TensorFlow's")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the lean step is TensorFlow's"
)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make(**how):
    """A student with dropout, whose teacher follows it: all that a step may move."""
    keras.utils.set_random_seed(4)
    x = keras.Input((4,))
    h = keras.layers.Dropout(0.5, seed=1)(keras.layers.Dense(5)(x))
    student = keras.Model(x, keras.layers.Dense(3)(h))
    falling = keras.optimizers.schedules.PolynomialDecay(2.0, 10, 1.0)
    term = kd.Term(kd.losses.SoftTarget(falling), weight=0.5)
    distiller = kd.Distiller(student, kd.MeanTeacher(student, 0.9), terms=[term])
    distiller.compile(keras.optimizers.Adam(0.01), CROSS_ENTROPY, **how)
    return distiller


def state(distiller):
    variables = [*distiller.variables, *distiller.optimizer.variables]
    return [np.array(v) for v in variables]


def dataset():
    return tf.data.Dataset.from_tensor_slices(points()).batch(4)


def fitted(data, **how):
    distiller = make(**how)
    history = distiller.fit(data, epochs=3, verbose=0).history
    return distiller, history


@pytest.mark.parametrize(
    "how", [{"steps_per_execution": 3}, {"run_eagerly": True}], ids=str
)
def test_it_is_the_step_that_keras_calls(how):
    (lean, logs), (other, other_logs) = fitted(dataset()), fitted(dataset(), **how)
    for a, b in zip(state(lean), state(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert logs.keys() == other_logs.keys()
    for name in logs:
        np.testing.assert_allclose(logs[name], other_logs[name], rtol=1e-5)


def test_data_of_unknown_length_end_without_half_a_step():
    unknown = dataset().filter(lambda x, y: True)
    assert int(unknown.cardinality()) < 0
    (lean, logs), (other, other_logs) = fitted(unknown), fitted(dataset())
    assert int(lean.optimizer.iterations) == 9
    for a, b in zip(state(lean), state(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logs == other_logs


def test_a_batch_by_hand_is_a_step_too():
    x, y = points()
    lean, other = fitted(dataset())[0], make()
    for _ in range(3):
        for place in range(0, 12, 4):
            other.train_on_batch(x[place : place + 4], y[place : place + 4])
    for a, b in zip(state(lean), state(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


class Logs(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.last = {}

    def on_train_batch_end(self, batch, logs=None):
        self.last = {name: float(value) for name, value in logs.items()}


def test_means_are_of_all_samples_of_an_epoch():
    """Batches of 8 and 4: means by hand of what each gave, weighed by its samples."""
    x, y = points()
    kept = Logs()
    distiller = make()
    distiller.optimizer.learning_rate = 0.0
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    history = distiller.fit(data, verbose=0, callbacks=[kept]).history
    assert kept.last.keys() == history.keys()
    alone = make()
    alone.optimizer.learning_rate = 0.0
    first = alone.train_on_batch(x[:8], y[:8], return_dict=True)
    second = alone.train_on_batch(x[8:], y[8:], return_dict=True)
    for name in ("loss", "label_loss", "soft_target"):
        expected = (8 * first[name] + 4 * second[name]) / 12
        assert history[name][0] == pytest.approx(expected, rel=1e-5)
        assert kept.last[name] == pytest.approx(expected, rel=1e-5)


def in_batches(x, size):
    return tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x)))).batch(size)


def test_what_is_not_finite_is_found_by_a_look_now_and_then():
    x = np.ones((64, 4), "float32")
    x[20] = np.inf
    distiller = make()
    with pytest.raises(ValueError, match="call 8 of the step: label_loss"):
        distiller.fit(in_batches(x, 4), verbose=0)
    x[:] = 1.0
    x[-1] = np.inf
    distiller = make()
    with pytest.raises(ValueError, match="epoch 0: label_loss"):
        distiller.fit(in_batches(x, 5), verbose=0)


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
@pytest.mark.parametrize("small", [0, 10_000])
def test_a_step_is_traced_once(small, metrics, monkeypatch):
    """Also where the last batch is a smaller one."""
    monkeypatch.setattr(lean_step, "_SMALL", small)
    distiller, traces = make(metrics=metrics), []
    step = distiller.train_step
    distiller.train_step = lambda data: traces.append(data) or step(data)
    data = tf.data.Dataset.from_tensor_slices(points()).batch(5)
    distiller.fit(data, epochs=2, verbose=0)
    assert len(traces) == 1


def test_a_large_step_is_the_same(monkeypatch):
    lean, logs = fitted(dataset())
    monkeypatch.setattr(lean_step, "_SMALL", 0)
    other, other_logs = fitted(dataset())
    for a, b in zip(state(lean), state(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logs == other_logs


def test_a_metric_that_reads_values_runs_eagerly():
    seen = []

    def most(y_true, y_pred):
        seen.append(y_true.numpy().max())
        return keras.ops.mean(y_pred)

    distiller = make(run_eagerly=True, metrics=[most])
    distiller.fit(*points(), verbose=0)
    assert max(seen) == points()[1].max()


def test_without_compile_keras_says_so():
    x = keras.Input((4,))
    student = keras.Model(x, keras.layers.Dense(3)(x))
    distiller = kd.Distiller(student, kd.MeanTeacher(student))
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        distiller.fit(*points(), verbose=0)


def test_a_student_of_one_batch_size_takes_larger_arrays():
    x = keras.Input(batch_shape=(4, 4))
    halves = keras.ops.split(x, 2, axis=0)
    student = keras.Model(x, keras.layers.Dense(3)(keras.ops.concatenate(halves)))
    distiller = kd.Distiller(student, kd.MeanTeacher(student))
    distiller.compile("sgd", CROSS_ENTROPY)
    distiller.fit(*points(12), batch_size=4, verbose=0)
    assert int(distiller.optimizer.iterations) == 3
