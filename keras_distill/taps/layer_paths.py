"""Where a layer lies in a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import keras

from keras_distill._backend.keras_layers import flatten_layers, sublayers
from keras_distill.taps.tap import Tap

# Ends the name of a layer that a batch normalization was folded into: its output is
# another than before.
FOLDED = "_folded"


def layer_paths(model: keras.Layer, prefix: str = "") -> Iterator[str]:
    """List the paths of all layers below a model.

    Example:
        >>> print(*kd.taps.layer_paths(teacher), sep="\\n")
    """
    for layer in sublayers(model):
        yield prefix + layer.name
        yield from layer_paths(layer, f"{prefix}{layer.name}/")


def find_layer(model: keras.Layer, path: str) -> keras.Layer:
    """Find a layer by its path.

    Raises:
        ValueError: there is no such layer; the message has the nearest paths.

    Example:
        >>> kd.taps.find_layer(teacher, "backbone/stack2")
    """
    layer = model
    for part in path.split("/"):
        owner, layer = layer, _child(layer, part)
        if layer is None:
            folded = isinstance(owner, keras.Layer) and _child(owner, part + FOLDED)
            raise ValueError(_folded(path) if folded else _missing(model, path))
    return layer


def layers_of(model, taps) -> dict[Tap, keras.Layer]:
    """Find the tapped layers, whose values must be there."""
    layers = {tap: find_layer(model, tap.path) for tap in taps if not tap.is_logits}
    for tap, layer in layers.items():
        if getattr(layer, "is_folded", False) and tap.side == "input":
            raise ValueError(_folded(tap.path))
    return layers


def leaves_of(model) -> list[keras.Layer]:
    """List the layers without sublayers."""
    return [x for x in flatten_layers(model, include_self=False) if not sublayers(x)]


def _missing(model, path: str) -> str:
    known = list(layer_paths(model))
    near = difflib.get_close_matches(path, known, n=5, cutoff=0.4)
    return (
        f"The model '{model.name}' has no layer '{path}'. Near it: "
        f"{', '.join(near or known[-5:]) or 'none'}. Give the path of one of its "
        "layers, from the model down, joined by '/'."
    )


def _folded(path: str) -> str:
    return (
        f"The tap of '{path}' is of a value between a layer and the batch normalisation "
        "behind it, and kd.freeze folded the two into one. Tap what the normalisation "
        f"gives, or leave both as they are: kd.freeze(..., keep='{path}')."
    )


def _child(owner, part: str):
    if isinstance(owner, (list, tuple)):
        in_range = part.isdecimal() and int(part) < len(owner)
        return owner[int(part)] if in_range else None
    for layer in sublayers(owner):
        if layer.name == part:
            return layer
    child = getattr(owner, part, None) if part.isidentifier() else None
    return child if isinstance(child, (keras.Layer, list, tuple)) else None
