"""What calls what in a functional model, and what can be folded into what."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping

import keras
from keras import layers

FOLDABLE = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.Dense),
    *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    *(layers.SeparableConv1D, layers.SeparableConv2D),
)


def graph_of(model: keras.Layer) -> keras.Model | None:
    """Give a functional model over the layers of a model, None if its own code runs them."""
    if isinstance(model, keras.Sequential):
        if type(model).call is keras.Sequential.call:
            return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    elif isinstance(model, keras.Model) and hasattr(model, "operations"):
        graph = keras.Model(model.input, model.output, name=model.name)
        if type(model).call is type(graph).call:
            return graph
    return None


def graphs_of(model: keras.Model) -> dict[int, keras.Model]:
    """Give the graphs of a model and of those in it, however deep, by the model's `id`.

    Raises:
        ValueError: the model has no graph.
    """
    graph = graph_of(model)
    if graph is None:
        raise ValueError(
            f"The model '{model.name}' is run by code of its own "
            f"({type(model).__name__}.call), which can't be rewritten. Functional and "
            "Sequential models can be frozen, also inside of each other: freeze such a "
            "part of it, or take the model as it is."
        )
    found = {id(model): graph}
    for layer in graph.layers:
        if id(layer) not in found and graph_of(layer) is not None:
            found.update(graphs_of(layer))
    return found


def foldable(graphs: Iterable[keras.Model]) -> list[tuple[keras.Layer, keras.Layer]]:
    """List layers with the batch normalisation that each call of them goes into.

    Nothing else may use what they give, and nothing else may go into the normalisation.

    Raises:
        ValueError: a layer is called in training form.
    """
    calls, users = _calls_and_users(graphs)
    found = []
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
            found.append((layer, norm))
    return found


def is_normalization(layer) -> bool:
    """Tell whether a layer is batch normalisation, and no subclass of it."""
    return type(layer) is layers.BatchNormalization


def _calls_and_users(graphs) -> tuple[Mapping, Mapping]:
    """Give the calls of each operation, and what takes each tensor (None: the output)."""
    calls, users = defaultdict(list), defaultdict(list)
    seen = set()
    for graph in graphs:
        for tensor in graph.outputs:
            users[id(tensor)].append(None)
        for node in itertools.chain(*graph._nodes_by_depth.values()):
            if id(node) in seen:
                continue
            seen.add(id(node))
            _runs_in_inference_form(graph, node)
            calls[id(node.operation)].append(node)
            for tensor in node.input_tensors:
                users[id(tensor)].append(node.operation)
    return calls, users


def _runs_in_inference_form(graph, node) -> None:
    if node.arguments.kwargs.get("training"):
        raise ValueError(
            f"The model '{graph.name}' calls its layer '{node.operation.name}' with "
            "training=True, so it has no inference form. Build it without, or take the "
            "model as it is."
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
