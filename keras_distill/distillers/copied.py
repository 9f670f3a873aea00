"""Copies of Keras objects, without what they learnt or counted."""

from __future__ import annotations

import keras


def copied(objects):
    """Make layers, metrics or optimisers anew from their arguments; leave the rest.

    Args:
        objects: one, or a structure of them, in which there may be names and None.
    """
    return keras.tree.map_structure(_copy, objects)


def _copy(value):
    if not isinstance(value, (keras.Layer, keras.Metric, keras.Optimizer)):
        return value
    return type(value).from_config(value.get_config())
