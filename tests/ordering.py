"""Which reads and writes of a variable TensorFlow may run in either order."""

from collections import defaultdict


def unordered_accesses(run):
    """Give pairs of operations on one variable that no path orders.

    Args:
        run: what runs the functions that are looked at, once optimised.
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
        raise ValueError("No graph that writes to a variable was run.")
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


def _before(name, inputs, known):
    if name not in known:
        known[name], open_ones = set(), [name]
        while open_ones:
            new = set(inputs[open_ones.pop()]) - known[name]
            known[name] |= new
            open_ones += new
    return known[name]
