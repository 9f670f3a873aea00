"""Raw data on their way into a distiller: by batches, streams, wrong ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = np.arange(40) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SPEC = tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int64)


def dense(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), layers.Dense(3)])


def distiller(loss=LOSS, **arguments):
    made = kd.Distiller(dense(), dense(1), **arguments)
    made.compile(keras.optimizers.SGD(0.0), loss)
    return made


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_a_batch_is_checked_as_fit_checks_it(method):
    probabilities = keras.losses.SparseCategoricalCrossentropy()
    with pytest.raises(ValueError, match="takes probabilities"):
        getattr(distiller(probabilities), method)(X, Y)
    with pytest.raises(ValueError, match=r"Labels must lie in 0\.\.2"):
        getattr(distiller(), method)(X, Y + 1)


def test_no_teacher_is_an_error_by_batches_too():
    made = distiller()
    loaded = kd.Distiller.from_config(made.get_config())
    loaded.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="no teacher"):
        loaded.train_on_batch(X, Y)


def test_batches_give_what_fit_and_evaluate_give():
    made, weights = distiller(), np.linspace(0.0, 1.0, 40)
    logs = made.train_on_batch(X, Y, weights, return_dict=True)
    arguments = {"sample_weight": weights, "batch_size": 40, "verbose": 0}
    fitted = made.fit(X, Y, **arguments).history
    assert {name: [x] for name, x in logs.items()} == {
        name: [pytest.approx(x[0], rel=1e-5)] for name, x in fitted.items()
    }
    assert made.test_on_batch(X, Y, weights) == pytest.approx(
        made.evaluate(X, Y, **arguments), rel=1e-5
    )
    np.testing.assert_allclose(
        made.predict_on_batch(X), made.student.predict(X, verbose=0), rtol=1e-5
    )


class Seen(keras.callbacks.Callback):
    """Count the batches, and keep the loss of each."""

    def on_train_begin(self, logs=None):
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))


def stream():
    return ((X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8))


def one_shot(wrap=lambda data: data):
    opened = stream()
    return wrap(tf.data.Dataset.from_generator(lambda: opened, output_signature=SPEC))


STREAMS = {
    "generator": stream,
    "dataset of one": one_shot,
    "mapped and fetched ahead": lambda: one_shot(
        lambda data: data.map(lambda x, y: (x, y)).prefetch(2)
    ),
    "a dataset that starts anew": lambda: tf.data.Dataset.from_generator(
        stream, output_signature=SPEC
    ),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.filterwarnings("ignore")
def test_no_batch_of_a_stream_is_lost_or_comes_twice(name):
    made, seen = distiller(), Seen()
    made.fit(STREAMS[name](), verbose=0, callbacks=[seen])
    expected = Seen()
    made.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[expected])
    assert len(seen.losses) == 5
    # Keras logs running means, by which an order and a repetition would be seen.
    assert seen.losses == pytest.approx(expected.losses, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_generator_that_starts_anew_is_read_in_each_epoch():
    data, seen = STREAMS["a dataset that starts anew"](), Seen()
    distiller().fit(data, epochs=2, verbose=0, callbacks=[seen])
    assert len(seen.losses) == 10


def test_joined_caches_are_validated_on_plain_data(tmp_path):
    """After the first epoch, `evaluate` found no part 'image' in plain images."""
    samples = kd.data.Samples(X, Y.astype("int32"))
    cached = kd.CachedTeacher(tmp_path / "c", dense(1), dtype="float32")
    cached.build(samples, verbose=0)
    made = kd.Distiller(dense(), cached, student_inputs="image")
    made.compile(keras.optimizers.SGD(0.0), LOSS)
    data = cached.join(kd.data.batches(samples, 8, sample_ids=True))
    student = dense()
    student.compile("sgd", LOSS)
    expected = student.evaluate(X, Y, verbose=0)
    plain = kd.data.batches(samples, 8)
    for validation in ((X, Y), plain, kd.data.batches(samples, 8, sample_ids=True)):
        logs = made.fit(data, verbose=0, validation_data=validation).history
        assert logs["val_loss"][0] == pytest.approx(expected, rel=1e-5)
