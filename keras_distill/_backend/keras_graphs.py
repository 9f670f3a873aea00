"""What Keras keeps private of the graph of a functional model."""

from __future__ import annotations

import keras


def nodes_of(model: keras.Model) -> list:
    """Return the nodes of a functional model, one per call, in the order in which they run.

    A node has an `operation`, `arguments`, `input_tensors` and `outputs`.

    Stands in for a public form of `keras.Function._nodes_by_depth`. A question for a way
    to walk a model's graph, https://github.com/keras-team/keras/issues/19278, was closed
    without one; no open issue asks for it.
    """
    by_depth = model._nodes_by_depth
    return [
        node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]
    ]
