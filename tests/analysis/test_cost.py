import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill.analysis import Cost, cost, table


def one_layer(shape, layer):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


class SelfAttention(layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4)

    def call(self, inputs):
        return self.attention(inputs, inputs)


# Each count is written as output positions * multiplications per position.
BY_HAND = {
    "dense": ((7,), layers.Dense(3), 7 * 3),
    "dense on a sequence": ((5, 7), layers.Dense(3), 5 * 7 * 3),
    "einsum": ((5, 8), layers.EinsumDense("abc,cde->abde", (5, 2, 4)), 5 * 8 * 2 * 4),
    "einsum over both": ((5, 8), layers.EinsumDense("abc,bcd->ad", (3,)), 5 * 8 * 3),
    "einsum ellipsis": (
        (4, 5, 8),
        layers.EinsumDense("...x,xy->...y", 3),
        (4 * 5) * 8 * 3,
    ),
    # 9x7 at stride 2 with same padding: 5x4.
    "stride": ((9, 7, 3), layers.Conv2D(8, 3, 2, "same"), (5 * 4) * 3 * 3 * 3 * 8),
    "valid": ((5, 4, 8), layers.Conv2D(16, 3), (3 * 2) * 3 * 3 * 8 * 16),
    "dilated": ((9, 9, 2), layers.Conv2D(4, 3, dilation_rate=2), 25 * 9 * 2 * 4),
    "oblong": ((6, 6, 2), layers.Conv2D(4, (1, 5)), (6 * 2) * 5 * 2 * 4),
    # Four groups: each of the 8 filters sees 2 of the 8 channels.
    "grouped": ((6, 6, 8), layers.Conv2D(8, 3, groups=4), 16 * 9 * 2 * 8),
    "causal": ((10, 3), layers.Conv1D(4, 3, padding="causal"), 10 * 3 * 3 * 4),
    "volume": ((4, 4, 4, 2), layers.Conv3D(3, 2), 27 * 8 * 2 * 3),
    "depthwise": (
        (6, 6, 4),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        16 * 9 * 4 * 2,
    ),
    "depthwise 1d": ((6, 4), layers.DepthwiseConv1D(3, 2), 2 * 3 * 4),
    "separable": (
        (6, 6, 4),
        layers.SeparableConv2D(10, 3, depth_multiplier=2),
        16 * (9 * 4 * 2 + 8 * 10),
    ),
    # Each of the 4x4 input positions is multiplied by the whole kernel.
    "transposed": (
        (4, 4, 3),
        layers.Conv2DTranspose(5, 3, 2, "same"),
        16 * 3 * 3 * 3 * 5,
    ),
    "channels first": (
        (3, 6, 5),
        layers.Conv2D(4, 3, data_format="channels_first"),
        (4 * 3) * 9 * 3 * 4,
    ),
    "each step": ((5, 8), layers.TimeDistributed(layers.Dense(3)), 5 * 8 * 3),
    # Query, key, value and output of two heads of four.
    "attention": ((5, 8), SelfAttention(), 4 * (5 * 8 * 8)),
    "nothing": ((6, 6, 4), layers.BatchNormalization(), 0),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_layers_cost_as_counted_by_hand(case):
    shape, layer, expected = BY_HAND[case]
    assert cost(one_layer(shape, layer)).multiplications == expected


def test_a_perceptron_costs_its_kernels():
    model = kd.models.mlp((28, 28, 1), 10, units=(30, 20))
    multiplications = 784 * 30 + 30 * 20 + 20 * 10
    assert cost(model) == Cost(multiplications + 30 + 20 + 10, multiplications, None)


@pytest.mark.parametrize(
    "model",
    [
        lambda: kd.models.conv_net((8, 8, 1), 10, filters=(4, 8)),
        lambda: kd.models.resnet((9, 9, 3), 10, depth=8),
        lambda: kd.models.wide_resnet((8, 8, 3), 10, depth=10, widen=2),
    ],
)
def test_models_cost_half_the_operations_that_tensorflow_counts(model):
    """TensorFlow's profiler counts a multiply-accumulate as two operations."""
    model = model()
    signature = tf.TensorSpec((1, *model.input_shape[1:]))
    run = tf.function(lambda x: model(x, training=False))
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder
    options = options(options.float_operation()).with_empty_output().build()
    node = profiler.profile(
        run.get_concrete_function(signature).graph, cmd="op", options=options
    )
    operations = {}
    while node.children:
        (node,) = node.children[:1]
        operations[node.name] = node.float_ops
    expected = (operations["Conv2D"] + operations["MatMul"]) / 2
    assert cost(model).multiplications == expected


def test_shared_layers_count_each_call_and_their_weights_once():
    shared = layers.Dense(4, name="shared")
    block = keras.Sequential([keras.Input((4,)), shared, layers.Dense(4)])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, block(shared(block(inputs))))
    # Two calls of the block with two layers each, and one more of the shared layer.
    assert cost(model) == Cost(2 * (16 + 4), 5 * 16, None)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.stages = [layers.Conv2D(2, 3), layers.Conv2D(3, 3)]

    def call(self, inputs):
        for stage in self.stages:
            inputs = stage(inputs)
        return inputs


def test_samples_provide_sizes_that_the_model_lacks():
    samples = np.zeros((2, 6, 5, 1), "float32")
    expected = (4 * 3) * 9 * 2 + (2 * 1) * 9 * 2 * 3
    assert cost(Subclassed(), samples, repeats=1).multiplications == expected
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, Subclassed()(inputs))
    assert cost(model, samples, repeats=1).multiplications == expected
    with pytest.raises(ValueError, match=r"'conv2d.*Pass one batch of inputs"):
        cost(model)
    with pytest.raises(ValueError, match="input shape of the model"):
        cost(Subclassed())


def test_several_inputs():
    first, second = keras.Input((3,), name="first"), keras.Input((5,), name="second")
    model = keras.Model(
        {"first": first, "second": second},
        layers.Dense(2)(first) + layers.Dense(2)(second),
    )
    assert cost(model).multiplications == 3 * 2 + 5 * 2


def test_time_is_the_median_run_divided_by_the_batch_size(monkeypatch):
    model = kd.models.mlp((3,), 2, units=(4,))
    runs = []
    monkeypatch.setattr(model, "predict_on_batch", runs.append)
    # The first run compiles and is not timed.
    ticks = itertools.accumulate([0.0, 8.0, 0.0, 1.0, 0.0, 4.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    samples = np.zeros((2, 3), "float32")
    assert cost(model, samples, repeats=3).seconds_per_image == 4.0 / 2
    assert len(runs) == 4


def test_a_timed_model_is_unchanged():
    model = kd.models.conv_net((8, 8, 1), 10, filters=(4,))
    before = [np.array(weight) for weight in model.weights]
    seconds = cost(model, np.ones((4, 8, 8, 1), "float32"), repeats=2).seconds_per_image
    assert seconds > 0 and math.isfinite(seconds)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert "call" not in model.get_layer("logits").__dict__


@pytest.mark.parametrize(
    ("samples", "repeats", "message"),
    [
        (np.zeros((0, 3), "float32"), 1, r"shape \(0, 3\)"),
        (tf.data.Dataset.from_tensors(np.zeros((2, 3))), 1, "one batch of the model's"),
        (np.zeros((2, 3), "float32"), -1, "repeats must be an integer of 0 or more"),
    ],
)
def test_bad_samples_are_rejected(samples, repeats, message):
    with pytest.raises(ValueError, match=message):
        cost(kd.models.mlp((3,), 2, units=(4,)), samples, repeats)


def test_tables_are_aligned_markdown():
    rows = [
        {"model": "teacher", "parameters": 272474, "errors": "3.1 ± 0.4"},
        {"model": "a|b", "time": np.float32(1.23456e-5), "parameters": np.int64(8)},
    ]
    assert table(rows).splitlines() == [
        "| model   | parameters |    errors |      time |",
        "| ------- | ---------: | --------: | --------: |",
        "| teacher |    272,474 | 3.1 ± 0.4 |           |",
        "| a\\|b    |          8 |           | 1.235e-05 |",
    ]


def test_a_table_without_rows_is_rejected():
    with pytest.raises(ValueError, match="at least one row"):
        table([])
