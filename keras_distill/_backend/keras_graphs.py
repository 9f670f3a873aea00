"""Private parts of a functional model's graph."""

from collections import defaultdict

import keras


def runs_graph(model: keras.Layer) -> bool:
    """Whether a model's `call` runs a functional graph, and no code of its own.

    Stands in for a public class of functional models, for which no public issue asks:
    `keras.Model` is the class of subclassed ones too.
    """
    from keras.src.models.functional import Functional

    return isinstance(model, Functional) and type(model).call is Functional.call


def nodes_of(model: keras.Model) -> list:
    """Return the nodes of a functional model, one per call, in the order in which they run.

    A node has an `operation`, `arguments`, `input_tensors` and `outputs`.

    Stands in for a public form of `keras.Function._nodes_by_depth`. keras-team/keras
    issue 19278, which asks how to walk a model's graph, was closed without one.
    """
    by_depth = model._nodes_by_depth
    return [
        node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]
    ]


def creation_ranks(nodes: list) -> list[int]:
    """Return for each node of a graph its rank among its operation's, the oldest first.

    Stands in for a public form of `keras.Operation._inbound_nodes`, for which
    keras-team/keras issue 20267 asks.
    """
    in_graph, ranks = {id(node) for node in nodes}, {}
    for operation in {id(node.operation): node.operation for node in nodes}.values():
        calls = [id(node) for node in operation._inbound_nodes if id(node) in in_graph]
        ranks |= {call: rank for rank, call in enumerate(calls)}
    return [ranks[id(node)] for node in nodes]


def in_order_of_creation(nodes: list) -> list:
    """Return the nodes of one graph in an order in which they could have been created.

    A node comes after those whose outputs it takes and after older ones of its operation.
    """
    waiting = list(zip(nodes, creation_ranks(nodes), strict=True))
    ordered, available, counts = [], set(), defaultdict(int)
    while waiting:
        i, node = next(
            (i, node)
            for i, (node, rank) in enumerate(waiting)
            if rank == counts[id(node.operation)]
            and all(id(x) in available for x in node.input_tensors)
        )
        del waiting[i]
        ordered.append(node)
        available.update(map(id, node.outputs))
        counts[id(node.operation)] += 1
    return ordered
