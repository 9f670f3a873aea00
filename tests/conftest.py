"""Settings and fixtures of all tests: two logical CPU devices, a fixed seed, small nets."""

import gc
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# A worker a core: threads of its own would take that of another.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.data.batches import without_tuning
from tests.differentiation import differentiate
from tests.nets import conv_pair

# More generated inputs, by `--hypothesis-profile many`.
hypothesis.settings.register_profile("many", max_examples=500)
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

if ON_TENSORFLOW:
    import tensorflow as tf

    # Before TensorFlow starts: two replicas run on the CPU, as they would on two GPUs.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    iterate = tf.data.Dataset.__iter__

    # A worker has one core, on which each iterator would end late: a fifth of the suite.
    tf.data.Dataset.__iter__ = lambda dataset: iterate(without_tuning(dataset))


def pytest_collection_finish():
    """Take what is imported, which stays, out of the garbage collector's sight.

    It has most of the objects, and each full collection took a second to visit them.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def float32_policy():
    """Restore the global dtype policy after each test."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def channels_first():
    """Have Keras take the channels of maps first by default."""
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.fixture(scope="session")
def gradient():
    """Return a function that differentiates a function at an array with the backend."""

    def take(function, array):
        tensor = keras.ops.cast(array, "float32")
        return keras.ops.convert_to_numpy(differentiate(function, tensor)[1][0])

    return take


@pytest.fixture(scope="session")
def central_difference():
    """Return the same for a NumPy function, by central differences in float64."""

    def take(function, array, step=1e-5):
        array = np.asarray(array, "float64")
        derivative = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            offset = np.zeros_like(array)
            offset[index] = step
            above, below = function(array + offset), function(array - offset)
            derivative[index] = (above - below) / (2 * step)
        return derivative

    return take


@pytest.fixture(scope="session")
def two_replicas():
    """Return a strategy over the two logical devices that the CPU is split into.

    All tests share it: a second strategy in a process would reuse the collective keys.
    """
    if not ON_TENSORFLOW:
        pytest.skip("replicas of a strategy are TensorFlow's")
    with kd.strategies.scope("mirrored") as strategy:
        assert strategy.num_replicas_in_sync == 2, "the CPU is split at the top"
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
    """Return terms on the logits and on hidden layers, one of them on two layers."""
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
