"""Correlations of predictions against NumPy's corrcoef in float64."""

import numpy as np
import pytest
import tensorflow as tf

from keras_distill.losses import PredictionCorrelation
from tests.formulas import softmax


def correlation(teacher, student, temperature, beta, gamma):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    rows = np.array([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)]
    return temperature**2 * (beta * rows + gamma * np.mean(columns))


@pytest.fixture
def logits():
    return 2 * np.random.default_rng(0).normal(size=(2, 6, 5))


@pytest.mark.parametrize(
    ("temperature", "beta", "gamma"), [(1, 1, 1), (4, 2, 0.5), (2, 1, 0)]
)
def test_equals_numpy(logits, temperature, beta, gamma):
    loss = PredictionCorrelation(temperature, beta=beta, gamma=gamma, reduction=None)
    expected = correlation(*logits, temperature, beta, gamma)
    np.testing.assert_allclose(loss(*logits), expected, rtol=1e-3)


def test_gradient_equals_finite_differences(logits, gradient, central_difference):
    teacher, student = logits
    grad = gradient(lambda z: PredictionCorrelation(2.0)(teacher, z), student)
    expected = central_difference(
        lambda z: correlation(teacher, z, 2.0, 1.0, 1.0).mean(), student
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_a_scaled_prediction_is_equivalent(logits):
    """Probabilities that are a linear function of the teacher's correlate fully."""
    p = softmax(logits[0])
    blurred = np.log(0.3 * p + 0.7 / 5)
    np.testing.assert_allclose(
        PredictionCorrelation()(logits[0], blurred), 0.0, atol=1e-5
    )


def test_a_batch_of_one_has_no_columns(logits):
    one = logits[:, :1]
    expected = correlation(*logits, 1.0, 1.0, 0.0)[:1]
    loss = PredictionCorrelation(reduction=None)
    np.testing.assert_allclose(loss(*one), expected, rtol=1e-4)


def test_masked_tokens_are_in_no_column(logits):
    tokens = logits.reshape(2, 2, 3, 5)
    mask = np.array([[True, True, False], [True, False, False]])
    loss = PredictionCorrelation(2.0)
    actual = loss(*tokens, mask=tf.constant(mask))
    kept = logits[:, mask.ravel()]
    np.testing.assert_allclose(
        actual, correlation(*kept, 2.0, 1.0, 1.0).mean(), rtol=1e-3
    )


def test_replicas_use_the_columns_of_the_global_batch(logits, two_replicas):
    loss = PredictionCorrelation(2.0)
    grads = replica_gradients(loss, logits.astype("float32"), two_replicas)
    whole = gradient_of(loss, *logits.astype("float32"))
    np.testing.assert_allclose(grads, whole, rtol=1e-4, atol=1e-7)


def gradient_of(loss, teacher, student):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student)
    return tape.gradient(value, student)


def replica_gradients(loss, logits, strategy):
    def distribute(side):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.split(logits[side], 2)[context.replica_id_in_sync_group]
        )

    step = tf.function(lambda teacher, student: gradient_of(loss, teacher, student))
    parts = strategy.run(step, tuple(map(distribute, (0, 1))))
    return np.concatenate(strategy.experimental_local_results(parts))


def test_bad_weights():
    with pytest.raises(ValueError, match="gamma must be 0 or more; got -2"):
        PredictionCorrelation(gamma=-2)
