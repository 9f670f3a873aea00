"""What a graph's nodes are: one per call, before the calls that use its output."""

import keras
from keras import layers, ops

from keras_distill._backend import keras_graphs


def test_nodes_are_the_calls_in_the_order_in_which_they_run():
    inputs = keras.Input((4,), name="x")
    dense = layers.Dense(4, name="dense")
    first = dense(inputs)
    second = dense(first, training=True)
    outputs = layers.Add(name="add")([first, ops.tanh(second)])
    nodes = keras_graphs.nodes_of(keras.Model(inputs, outputs))
    names = [node.operation.name for node in nodes]
    assert names[:3] == ["x", "dense", "dense"] and names[4:] == ["add"]
    assert [len(node.input_tensors) for node in nodes] == [0, 1, 1, 1, 2]
    assert nodes[0].outputs[0] is inputs and nodes[1].outputs[0] is first
    assert nodes[2].input_tensors[0] is first and nodes[2].outputs[0] is second
    assert nodes[2].arguments.kwargs == {"training": True}
    assert not nodes[1].arguments.kwargs.get("training")
    assert nodes[4].operation.output is outputs
