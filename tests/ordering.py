"""Pairs of reads and writes of a variable that TensorFlow may run in either order."""

from collections import defaultdict


def unordered_accesses(run):
    """Return pairs of operations on a variable that no path in the graph orders.

    Args:
        run: runs the functions to inspect; their optimized graphs are recorded.
    """
    from tensorflow.python.eager import context

    context.context().enable_graph_collection()
    try:
        run()
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    graphs = [graph.post_optimization_graph for graph in graphs]
    if not any(_writes(graph) for graph in graphs):
        raise ValueError("Expected a graph that writes to a variable; none was run.")
    return [pair for graph in graphs for pair in _unordered(graph)]


def _writes(graph):
    return [node for node in graph.node if node.op.startswith("Assign")]


def _unordered(graph):
    inputs = {
        node.name: [name.lstrip("^").split(":")[0] for name in node.input]
        for node in graph.node
    }
    reads, writes = defaultdict(list), defaultdict(list)
    for node in graph.node:
        if node.op in ("ReadVariableOp", "ResourceGather"):
            reads[node.input[0]].append(node.name)
    for node in _writes(graph):
        writes[node.input[0]].append(node.name)
    before = {}
    for variable, names in writes.items():
        for name in names:
            for other in [*reads[variable], *names]:
                ordered = name in _before(other, inputs, before)
                ordered |= other in _before(name, inputs, before)
                if other != name and not ordered:
                    yield name, other


def _before(name, inputs, cache):
    if name not in cache:
        cache[name], pending = set(), [name]
        while pending:
            new = set(inputs[pending.pop()]) - cache[name]
            cache[name] |= new
            pending += new
    return cache[name]
