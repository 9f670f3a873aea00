"""What a `tf.data.Dataset` is made of, and how often Keras iterates over one."""

import keras


def passes_per_epoch(batches: int) -> int:
    """Return how many iterators of a `tf.data.Dataset` Keras creates in each epoch.

    Each draws a new order where the data are shuffled. Stands in for a public way to
    learn the number of passes of `keras.src.trainers.epoch_iterator.EpochIterator`, which
    creates one for the next epoch and another when that begins; no public issue asks for
    it. On JAX and torch the first of them is never read, and draws nothing.

    Args:
        batches: of the data; negative if unknown.
    """
    return 2 if batches > 0 and keras.backend.backend() == "tensorflow" else 1


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
