"""What every test starts from: a quiet log, two logical CPU devices, a fixed seed."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.differentiation import differentiate
from tests.nets import conv_pair

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

if ON_TENSORFLOW:
    import tensorflow as tf

    # Before anything runs: two replicas share the one processor, as they would two GPUs.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )


@pytest.fixture(autouse=True)
def fixed_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def float32_policy():
    """Put the global dtype policy right after a test that sets another."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def gradient():
    """Give the function from a function and an array to the backend's gradient."""

    def take(function, array):
        tensor = keras.ops.cast(array, "float32")
        return keras.ops.convert_to_numpy(differentiate(function, tensor)[1][0])

    return take


@pytest.fixture(scope="session")
def central_difference():
    """Give the same, by differences of a NumPy function of a float64 array."""

    def take(function, array, step=1e-5):
        array = np.asarray(array, "float64")
        slope = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            nudge = np.zeros_like(array)
            nudge[place] = step
            ahead, behind = function(array + nudge), function(array - nudge)
            slope[place] = (ahead - behind) / (2 * step)
        return slope

    return take


@pytest.fixture(scope="session")
def two_replicas():
    """Give a strategy over the two logical devices that the CPU is split into.

    One for all tests: a second strategy of a process would reuse the collective keys.
    """
    if not ON_TENSORFLOW:
        pytest.skip("replicas of a strategy are TensorFlow's")
    with kd.strategies.scope("mirrored") as strategy:
        assert strategy.num_replicas_in_sync == 2, "split above, before anything runs"
        return strategy


@pytest.fixture
def nets():
    keras.utils.set_random_seed(1)
    return conv_pair()


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype("float32")
    return x, rng.integers(0, 3, 32).astype("int32")


@pytest.fixture
def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def three_taps():
    """Give the terms of a distiller with three tapped layers beside the logits."""
    return [
        kd.Term(kd.losses.SoftTarget(4.0), weight=0.9),
        kd.Term(kd.losses.Hint(), student="stack1", teacher="stack2", weight=1.0),
        kd.Term(kd.losses.AttentionMap(), "stack2", "stack2", weight=10.0),
        kd.Term(
            kd.losses.FlowMatrix(),
            student=("stack1", "stack2"),
            teacher=("stack1", "stack2"),
            weight=1.0,
        ),
    ]
