"""The graph of a functional model, and which normalizations can be folded."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import keras
from keras import layers

from keras_distill._backend.keras_graphs import nodes_of, runs_graph

FOLDABLE = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.Dense),
    *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    *(layers.SeparableConv1D, layers.SeparableConv2D),
)


def graph_of(model: keras.Layer) -> keras.Model | None:
    """Return a functional model of a model's layers, or None if it has a custom call."""
    if isinstance(model, keras.Sequential):
        if type(model).call is keras.Sequential.call:
            return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    elif runs_graph(model):
        return keras.Model(model.input, model.output, name=model.name)
    return None


def graphs_of(model: keras.Model) -> dict[int, keras.Model]:
    """Return the graphs of a model and of all models nested in it, by the model's `id`.

    Raises:
        ValueError: the model has no graph.
    """
    graph = graph_of(model)
    if graph is None:
        raise ValueError(
            f"The model '{model.name}' has a custom call "
            f"({type(model).__name__}.call), which can't be rewritten. Functional and "
            "Sequential models can be frozen, also when nested: freeze such a part of "
            "it, or use the model unchanged."
        )
    graphs = {id(model): graph}
    for layer in graph.layers:
        if id(layer) not in graphs and graph_of(layer) is not None:
            graphs.update(graphs_of(layer))
    return graphs


def foldable(graphs: Iterable[keras.Model]) -> list[tuple[keras.Layer, keras.Layer]]:
    """Return pairs of a layer and the batch normalization of its outputs.

    Nothing else may use the layer's outputs, and the normalization may have no other
    inputs.

    Raises:
        ValueError: a layer is called with training=True.
    """
    calls, users = _calls_and_users(graphs)
    pairs = []
    for nodes in calls.values():
        layer = nodes[0].operation
        if type(layer) not in FOLDABLE or not _is_linear(layer):
            continue
        following = [user for node in nodes for user in users[id(node.outputs[0])]]
        norm = following[0] if following else None
        if (
            is_normalization(norm)
            and all(user is norm for user in following)
            and len(following) == len(nodes) == len(calls[id(norm)])
            and _same_channels(layer, norm, len(nodes[0].outputs[0].shape))
        ):
            pairs.append((layer, norm))
    return pairs


def is_normalization(layer) -> bool:
    """Return True if a layer is batch normalization, and not a subclass of it."""
    return type(layer) is layers.BatchNormalization


def _calls_and_users(graphs) -> tuple[Mapping, Mapping]:
    """Return each operation's calls, and each tensor's users (None: the model's output)."""
    calls, users = defaultdict(list), defaultdict(list)
    visited = set()
    for graph in graphs:
        for tensor in graph.outputs:
            users[id(tensor)].append(None)
        for node in nodes_of(graph):
            if id(node) in visited:
                continue
            visited.add(id(node))
            _check_inference(graph, node)
            calls[id(node.operation)].append(node)
            for tensor in node.input_tensors:
                users[id(tensor)].append(node.operation)
    return calls, users


def _check_inference(graph, node) -> None:
    if node.arguments.kwargs.get("training"):
        raise ValueError(
            f"The model '{graph.name}' calls its layer '{node.operation.name}' with "
            "training=True, so it has no inference form. Build it without this argument, "
            "or use the model unchanged."
        )


def _is_linear(layer) -> bool:
    return (
        layer.activation in (None, keras.activations.linear)
        and layer.activity_regularizer is None
        and getattr(layer, "quantization_mode", None) is None
    )


def _same_channels(layer, norm, rank: int) -> bool:
    first = getattr(layer, "data_format", None) == "channels_first"
    axis = 1 if first else rank - 1
    return norm.axis % rank == axis and layer.compute_dtype == norm.compute_dtype
