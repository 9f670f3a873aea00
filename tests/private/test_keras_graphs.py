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


def test_a_shared_layers_calls_are_ranked_as_they_were_made():
    """Keras runs the second call first here: its output is used first."""
    inputs = keras.Input((4,))
    dense = layers.Dense(4, name="dense")
    first = dense(inputs)
    second = dense(layers.ReLU(name="relu")(inputs))
    # A call outside of the graph does not count.
    dense(keras.Input((4,)))
    model = keras.Model(inputs, layers.Add()([second, first]))
    nodes = keras_graphs.nodes_of(model)
    ranks = keras_graphs.creation_ranks(nodes)
    pairs = zip(nodes, ranks, strict=True)
    calls = [(node, rank) for node, rank in pairs if node.operation is dense]
    assert [rank for _, rank in calls] == [1, 0]
    assert [node.outputs[0] for node, _ in calls] == [second, first]
    ordered = keras_graphs.in_order_of_creation(nodes)
    assert len(ordered) == len(nodes) and {*map(id, ordered)} == {*map(id, nodes)}
    made = [node.outputs[0] for node in ordered if node.operation is dense]
    assert made == [first, second]
    available = set()
    for node in ordered:
        assert available.issuperset(map(id, node.input_tensors))
        available.update(map(id, node.outputs))


class CustomCall(keras.Model):
    def call(self, x):
        return 2.0 * super().call(x)


def test_which_models_run_a_graph():
    inputs = keras.Input((4,))
    outputs = layers.Dense(2)(inputs)
    assert keras_graphs.runs_graph(keras.Model(inputs, outputs))
    assert not keras_graphs.runs_graph(CustomCall(inputs, outputs))
    assert not keras_graphs.runs_graph(keras.Sequential([inputs, layers.Dense(2)]))
    assert not keras_graphs.runs_graph(layers.Dense(2))
