"""The ends of models: where probabilities come from, and the logits behind them."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import activations, layers

from keras_distill._backend.keras_graphs import nodes_of
from keras_distill._backend.keras_layers import sublayers
from keras_distill.taps.outlines import outline
from keras_distill.taps.recording import record
from keras_distill.taps.tracing import trace
from keras_distill.teachers.freezing.folding import FOLDABLE, graph_of

PROBABILITIES = activations.softmax, activations.sigmoid, activations.log_softmax
# Layers whose activation is the last thing that they compute.
_ENDS = *FOLDABLE, layers.EinsumDense, layers.Activation
_OPERATIONS = {"Softmax", "LogSoftmax", "Sigmoid"}
# Layers and operations that move values and compute none.
_MOVES = {"Reshape", "Flatten", "Permute", "Identity", "Squeeze", "ExpandDims"}
_MOVES |= {"Transpose", "GetItem", "Cast", "RepeatVector"}


def last_of_graph(model):
    """Return the operation that returns a model's only output, None if it has no graph."""
    graph = graph_of(model) if isinstance(model, keras.Model) else None
    if graph is None or len(graph.outputs) > 1:
        return None
    nodes = (
        node
        for node in nodes_of(graph)
        if any(x is graph.outputs[0] for x in node.outputs)
    )
    operation = next(nodes).operation
    if isinstance(operation, keras.Layer) and sublayers(operation):
        return last_of_graph(operation)
    return operation


def leave_out(model, specs) -> None:
    """Leave the probabilities out of a model with a custom call, in place."""
    _, last = outline(model, specs)
    calls = []

    def run(inputs):
        with record([last]) as notes:
            outputs = model(inputs, training=False)
        # Some backends trace twice.
        calls[:] = notes[id(last)]
        return outputs

    if last is not None:
        trace(run, specs)
    if len(calls) != 1:
        problem = (
            "its own code computes the output"
            if last is None
            else (f"its layer '{last.name}' is called {len(calls)} times")
        )
        raise _not_found(model, problem)
    if _ends_in_activation(last):
        _make_linear(last)
    elif isinstance(last, layers.Softmax):
        _check_axis(model, last, len(calls[0][1].shape))
        last.call = _unchanged
    else:
        raise _not_found(model, f"it ends in {_named(last)}")

    def get_config():
        raise NotImplementedError(
            f"'{model.name}' is a copy by kd.as_logits, and the configuration of "
            f"{type(model).__name__} would restore its probabilities. Save its weights."
        )

    model.get_config = get_config


class End(NamedTuple):
    """The logits of an output, whether they are a softmax's, and the layer to change."""

    logits: Any
    is_softmax: bool
    change: Callable = lambda: None


class Ends:
    """The ends of a copy of a functional model."""

    def __init__(self, model: keras.Model):
        self.source = model
        nodes = nodes_of(model)
        self.producers = {id(x): node for node in nodes for x in node.outputs}
        users = [x for node in nodes for x in node.input_tensors]
        self.uses = Counter(map(id, [*users, *model.outputs]))
        self.calls = Counter(id(node.operation) for node in nodes)
        self.inside = {id(x) for x in users}
        self.nested = {}

    def model(self) -> keras.Model:
        """Return the model with logits for all outputs that end in probabilities.

        Raises:
            ValueError: there is none.
        """
        found, problems = {}, []
        for tensor in {id(x): x for x in self.source.outputs}.values():
            try:
                found[id(tensor)] = self.end_of(tensor)
            except ValueError as error:
                problems.append(error)
        if not found:
            raise problems[0]
        for end in found.values():
            end.change()
        logits = {key: end.logits for key, end in found.items()}
        return self.with_logits(self._others_of_nested() | logits)

    def with_logits(self, logits: dict, name: str | None = None) -> keras.Model:
        """Return the model with some outputs replaced, by their `id`."""
        outputs = keras.tree.map_structure(
            lambda x: logits.get(id(x), x), self.source.output
        )
        return keras.Model(self.source.input, outputs, name=name or self.source.name)

    def end_of(self, tensor) -> End:
        """Return the logits of a tensor.

        Raises:
            ValueError: there are none.
        """
        node = self.producers[id(tensor)]
        operation = node.operation
        is_layer = isinstance(operation, keras.Layer)
        kind = type(operation).__name__
        # The layer whose activation is the last step, also where it runs at each step.
        last = operation
        if isinstance(operation, layers.TimeDistributed):
            last = operation.layer
        if is_layer and _ends_in_activation(last):
            self._check_used_once(tensor, operation)
            is_softmax = last.activation is not activations.sigmoid
            return End(tensor, is_softmax, lambda: _make_linear(last))
        if is_layer and sublayers(operation):
            self._check_used_once(tensor, operation)
            return self._of_nested(node, tensor)
        if isinstance(operation, layers.Softmax) or kind in _OPERATIONS:
            if len(node.input_tensors) > 1:
                raise _not_found(self.source, f"'{operation.name}' takes a mask")
            _check_axis(self.source, operation, len(tensor.shape))
            name = operation.name + ("_logits" if self.uses[id(tensor)] > 1 else "")
            logits = _linear(operation, name)(node.input_tensors[0])
            return End(logits, kind != "Sigmoid")
        if kind in _MOVES and len(node.input_tensors) == 1:
            return self._moved(node, tensor)
        end = "its input" if node.is_input else _named(operation)
        raise _not_found(self.source, f"it ends in {end}")

    def _of_nested(self, node, tensor) -> End:
        nested = node.operation
        if graph_of(nested) is None:
            (specs,) = node.arguments.args
            return End(tensor, True, lambda: leave_out(nested, specs))
        found, outputs = self._nested_outputs(node)
        index = next(i for i, x in enumerate(node.outputs) if x is tensor)
        end = found[index]
        if isinstance(end, ValueError):
            raise end
        return End(outputs[index], end.is_softmax, end.change)

    def _nested_outputs(self, node) -> tuple[list, list]:
        """Return the ends of a nested model, errors where there is none, and its outputs."""
        if id(node) not in self.nested:
            ends, found, logits = Ends(graph_of(node.operation)), [], {}
            for output in ends.source.outputs:
                try:
                    found.append(ends.end_of(output))
                    logits[id(output)] = found[-1].logits
                except ValueError as error:
                    found.append(error)
            # Where the old model stays in the graph, the new one has another name.
            stays = any(id(x) in self.inside for x in node.outputs)
            name = node.operation.name + ("_logits" if stays else "")
            logits = ends._others_of_nested() | logits
            outputs = _called(ends.with_logits(logits, name), node)
            self.nested[id(node)] = found, keras.tree.flatten(outputs)
        return self.nested[id(node)]

    def _others_of_nested(self) -> dict:
        """Return outputs that end in no probabilities, of nested models that changed."""
        nodes = {id(x): node for x, node in self._output_nodes()}
        return {
            key: self.nested[id(node)][1][i]
            for key, node in nodes.items()
            if id(node) in self.nested
            for i, x in enumerate(node.outputs)
            if id(x) == key
        }

    def _output_nodes(self) -> list:
        return [(x, self.producers[id(x)]) for x in self.source.outputs]

    def _moved(self, node, tensor) -> End:
        (before,) = node.input_tensors
        end = self.end_of(before)
        if end.is_softmax and not _keeps_last_axis(node, before, tensor):
            raise _not_found(
                self.source,
                f"its layer '{node.operation.name}' moves the classes of a softmax from "
                f"{tuple(before.shape)} to {tuple(tensor.shape)}",
            )
        if end.logits is before:
            return End(tensor, end.is_softmax, end.change)
        moved = _called(node.operation, node, {id(before): end.logits})
        return End(moved, end.is_softmax, end.change)

    def _check_used_once(self, tensor, operation) -> None:
        if self.uses[id(tensor)] > 1 or self.calls[id(operation)] > 1:
            raise _not_found(
                self.source,
                f"the probabilities of '{operation.name}' are used elsewhere",
            )


def _check_axis(model, operation, rank: int) -> None:
    """Check that a softmax is one over the last axis, that of the classes."""
    axis = getattr(operation, "axis", -1)
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    if type(operation).__name__ != "Sigmoid" and [x % rank for x in axes] != [rank - 1]:
        raise _not_found(
            model,
            f"the softmax '{operation.name}' is over axis {axis} of {rank}, and the "
            "classes are the last axis",
        )


def _keeps_last_axis(node, before, after) -> bool:
    """Whether the last axis is as it was, after an operation that moves values."""
    operation, kind = node.operation, type(node.operation).__name__
    if kind == "Permute":
        return operation.dims[-1] == len(operation.dims)
    if kind == "Transpose":
        last = -1 if operation.axes is None else operation.axes[-1]
        return operation.axes is not None and last in (-1, len(before.shape) - 1)
    if kind == "GetItem":
        key = node.arguments.args[1]
        key = key if isinstance(key, (list, tuple)) else (key,)
        if Ellipsis in key or len(key) == len(before.shape):
            return key[-1] in (Ellipsis, slice(None))
    return after.shape[-1] == before.shape[-1]


def _called(operation, node, replaced=()):
    """Call an operation as a node did, with some tensors replaced."""
    tensors = {id(x): x for x in node.input_tensors} | dict(replaced)
    args, kwargs = node.arguments.fill_in(tensors)
    return operation(*args, **kwargs)


def _ends_in_activation(layer) -> bool:
    # A subclass with its own `call` may compute anything.
    ends = any(type(layer).call is kind.call for kind in _ENDS)
    return ends and getattr(layer, "activation", None) in PROBABILITIES


def _make_linear(layer) -> None:
    layer.activation = activations.linear


def _unchanged(inputs, mask=None):
    if mask is not None:
        raise ValueError("A Softmax that kd.as_logits left out was called with a mask.")
    return inputs


def _linear(operation, name: str) -> keras.Layer:
    policy = getattr(operation, "dtype_policy", None)
    return layers.Activation("linear", name=name, dtype=policy)


def _named(operation) -> str:
    activation = getattr(operation, "activation", None)
    how = f" with the activation '{activation.__name__}'" if activation else ""
    return f"'{operation.name}' ({type(operation).__name__}){how}"


BY_HAND = (
    "build the model without its last activation, or end it in front of it, as "
    "keras.Model(model.inputs, model.get_layer('...').output)."
)


def _not_found(model, problem: str) -> ValueError:
    return ValueError(
        f"kd.as_logits finds no softmax or sigmoid at the end of '{model.name}' that it "
        f"can leave out: {problem}. If that returns logits, use the model as it is; else "
        f"{BY_HAND}"
    )
