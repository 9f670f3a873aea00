"""The calls of a shared layer, in the order in which the model's author made them.

A functional model runs its graph by depth, which may be another order.
"""

import weakref
from typing import NamedTuple

import keras

from keras_distill._backend.keras_graphs import creation_ranks, nodes_of, runs_graph
from keras_distill._backend.keras_layers import flatten_layers

_without: weakref.WeakSet = weakref.WeakSet()


class Reordered(NamedTuple):
    """A layer whose calls a graph runs in another order, and the rank of each that is run."""

    graph: keras.Model
    operation: keras.Layer
    ranks: list[int]


def reordered_in(model: keras.Layer) -> list[Reordered]:
    """Return the reordered operations of a model and all models below it."""
    if model in _without:
        return []
    graphs = [layer for layer in flatten_layers(model) if runs_graph(layer)]
    found = [x for graph in graphs for x in _reordered(graph)]
    if not found:
        _without.add(model)
    return found


def _reordered(graph: keras.Model) -> list[Reordered]:
    nodes = nodes_of(graph)
    found = {}
    for node, rank in zip(nodes, creation_ranks(nodes), strict=True):
        one = Reordered(graph, node.operation, [])
        found.setdefault(id(node.operation), one).ranks.append(rank)
    layers = [x for x in found.values() if isinstance(x.operation, keras.Layer)]
    return [x for x in layers if x.ranks != sorted(x.ranks)]


def listened(reordered: list[Reordered]) -> list[keras.Layer]:
    """Return the layers that must be recorded too, for `in_order`."""
    return [layer for x in reordered for layer in (x.graph, x.operation)]


def in_order(calls: list, notes: dict, reordered: list[Reordered]) -> list:
    """Return all calls of a layer in one pass, in the author's order."""
    if not reordered or len(calls) < 2:
        return calls
    # Each call gets the position that it would have in the author's order.
    positions = {}
    for graph, operation, ranks in reordered:
        for frame in notes[id(graph)]:
            inside = [x for x in notes[id(operation)] if x.is_inside(frame)]
            if len(inside) == len(ranks):
                begins = [x.begin for x in inside]
                positions |= {
                    id(x): begins[rank] for x, rank in zip(inside, ranks, strict=True)
                }
    moved = [x for one in reordered for x in notes[id(one.operation)]]

    def key(call):
        around = sorted({x.begin: x for x in moved if call.is_inside(x)}.items())
        chain = [*(x for _, x in around), call]
        return [positions.get(id(x), x.begin) for x in chain]

    return sorted(calls, key=key)
