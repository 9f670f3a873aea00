"""What a `tf.data.Dataset` is made of."""


def reads_generator(dataset) -> bool:
    """Whether a `tf.data.Dataset` reads a Python generator, which may end for good.

    Stands in for a public way to walk the datasets that one is made of, which is
    `tf.data.Dataset._inputs`, and to see what `flat_map` calls; no public issue asks
    for either.
    """
    rest = [dataset]
    while rest:
        dataset = rest.pop()
        function = getattr(getattr(dataset, "_map_func", None), "function", None)
        if function is not None and _creates_generator(function.graph):
            return True
        rest += dataset._inputs() if hasattr(dataset, "_inputs") else []
    return False


def _creates_generator(graph) -> bool:
    return any(op.type == "GeneratorDataset" for op in graph.get_operations())
