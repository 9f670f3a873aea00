"""The activation that a tensor ends in, behind what only moves values."""

from collections.abc import Mapping
from functools import partial

import keras
from keras import activations, layers

from keras_distill._backend.keras_graphs import nodes_of, runs_graph
from keras_distill._backend.keras_layers import flatten_layers, sublayers
from keras_distill.taps.passes import forward
from keras_distill.taps.recording import record
from keras_distill.taps.tap import Tap
from keras_distill.taps.tracing import trace

SIGMOID, SOFTMAX, LINEAR = "sigmoid", "softmax", "linear"
# Layers and operations whose values are some of those of their inputs.
_MOVES = {"Concatenate", "Cast", "Copy", "Cropping1D", "Cropping2D", "Cropping3D"}
_MOVES |= {"Dropout", "ExpandDims", "Flatten", "GetItem", "Identity", "Permute"}
_MOVES |= {"Repeat", "RepeatVector", "Reshape", "Split", "Squeeze", "Stack", "Take"}
_MOVES |= {"Transpose", "UpSampling1D"}
_OPERATIONS = {"Sigmoid": SIGMOID, "Softmax": SOFTMAX}


def last_activation(model: keras.Layer, inputs, tap: Tap) -> str | None:
    """Return the activation that a tapped tensor ends in, as far as layers show it.

    Reshapes, concatenations and the like are walked through, in graphs and in nested
    models; of several parts, one that is a sigmoid or a softmax decides.

    Args:
        model: any model.
        inputs: specs of its inputs, or a batch of them.
        tap: of an output or a layer.

    Returns:
        `"sigmoid"`, `"softmax"` along the last axis, `"linear"` for a layer with a
        kernel and no activation; None for all else, such as a model's own code.
    """
    found, everything = [], flatten_layers(model)

    def run(inputs):
        with record(everything, model=model) as notes:
            _, tensors = forward(model, inputs, [tap], training=False)
        calls = [(x, *call) for x in everything for call in notes[id(x)]]
        calls = [call for call in calls if len(call) == 3]
        found.append(_of_recorded(tensors[tap], calls))
        return tensors[tap]

    trace(run, inputs)
    return found[-1]


def _of_recorded(tensor, calls: list) -> str | None:
    """Return the activation of a tensor of a pass, by the calls in which it was made."""
    for call in calls:
        layer, inputs, outputs = call
        flat = keras.tree.flatten(outputs)
        index = next((i for i, x in enumerate(flat) if x is tensor), None)
        if index is None or (sublayers(layer) and _graph(layer) is None):
            continue
        # A layer may return its input.
        others = [x for x in calls if x is not call]
        if not sublayers(layer):
            return _of_leaf(layer, inputs, partial(_of_recorded, calls=others))
        graph = _graph(layer)
        found = _Graph(graph).of(graph.outputs[index])
        if found is not None:
            return found
    return _of_wrapper(tensor, calls)


def _of_wrapper(tensor, calls: list) -> str | None:
    """Return the activation where a layer that is run at each step returns a tensor."""
    for layer, _, outputs in calls:
        if outputs is tensor and isinstance(layer, layers.TimeDistributed):
            return _of_layer(layer.layer)
    return None


def _of_leaf(layer, inputs, of_input) -> str | None:
    if type(layer).__name__ not in _MOVES and not _passes_on(layer):
        return _of_layer(layer)
    return _decisive([of_input(x) for x in keras.tree.flatten(inputs)])


def _decisive(found: list) -> str | None:
    """Return the activation of what several tensors make up."""
    probable = [x for x in found if x in (SIGMOID, SOFTMAX)]
    if probable:
        return probable[0]
    return LINEAR if found and set(found) == {LINEAR} else None


def _passes_on(layer) -> bool:
    """Whether a layer is an `Activation` that changes nothing."""
    return isinstance(layer, layers.Activation) and _is_linear(layer)


def _is_linear(layer) -> bool:
    return getattr(layer, "activation", None) in (None, activations.linear)


def _of_layer(layer) -> str | None:
    """Return the activation at the end of a layer that computes values."""
    activation = getattr(layer, "activation", None)
    if isinstance(layer, layers.Softmax):
        return SOFTMAX if layer.axis in (-1, None) else None
    if activation in (activations.sigmoid, activations.softmax):
        return SIGMOID if activation is activations.sigmoid else SOFTMAX
    computes = hasattr(layer, "kernel") and hasattr(layer, "activation")
    return LINEAR if computes and _is_linear(layer) else None


def _graph(layer) -> keras.Model | None:
    """Return the functional model that a layer's call runs, None if it runs its own code."""
    if isinstance(layer, keras.Sequential):
        is_plain = type(layer).call is keras.Sequential.call and layer.built
        if not is_plain or not getattr(layer, "inputs", None):
            return None
        return keras.Model(layer.inputs[0], layer.outputs[0], name=layer.name)
    return layer if runs_graph(layer) else None


class _Graph:
    """The graph of a functional model, walked from its outputs to its inputs.

    Args:
        model: functional.
        outer: the activation of each of its inputs, by the input's `id`, if known.
    """

    def __init__(self, model: keras.Model, outer: Mapping | None = None):
        self.producers = {id(x): node for node in nodes_of(model) for x in node.outputs}
        self.outer = outer or {}

    def of(self, tensor) -> str | None:
        """Return the activation that a tensor of the graph ends in."""
        node = self.producers[id(tensor)]
        if node.is_input:
            return self.outer.get(id(tensor))
        operation, kind = node.operation, type(node.operation).__name__
        if isinstance(operation, layers.TimeDistributed):
            return _of_layer(operation.layer)
        if isinstance(operation, keras.Layer) and sublayers(operation):
            return self._of_nested(node, tensor)
        if kind in _OPERATIONS and not isinstance(operation, keras.Layer):
            is_last = getattr(operation, "axis", -1) in (-1, len(tensor.shape) - 1)
            return _OPERATIONS[kind] if is_last else None
        return _of_leaf(operation, node.input_tensors, self.of)

    def _of_nested(self, node, tensor) -> str | None:
        nested, graph = node.operation, _graph(node.operation)
        index = next(i for i, x in enumerate(node.outputs) if x is tensor)
        if graph is None:
            specs = node.arguments.args
            is_one = len(specs) == 1 and len(node.outputs) == 1
            return last_activation(nested, specs[0], Tap.output()) if is_one else None
        pairs = zip(graph.inputs, node.input_tensors, strict=False)
        outer = {id(inner): self.of(x) for inner, x in pairs}
        return _Graph(graph, outer).of(graph.outputs[index])
