"""Maps with channels first: their axes are not those that losses and adapters take."""

import weakref
from collections.abc import Sequence

import keras
from keras import layers

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps.layer_paths import leaves_of
from keras_distill.taps.passes import forward
from keras_distill.taps.recording import record
from keras_distill.taps.tap import Tap
from keras_distill.taps.tracing import trace

_without: weakref.WeakSet = weakref.WeakSet()
# Layers of which the axes of the output are the author's choice.
_ARRANGE = layers.Permute, layers.Reshape, layers.Dense, layers.EinsumDense


def channels_first_layers(model: keras.Layer) -> list[keras.Layer]:
    """Return the layers that take maps or sequences with channels first."""
    if model in _without:
        return []
    found = [layer for layer in leaves_of(model) if _is_channels_first(layer)]
    if not found and model.built:
        _without.add(model)
    return found


def check_channels_last(model: keras.Layer, inputs, taps: Sequence[Tap]) -> None:
    """Check that no tap is of a map or a sequence with channels first.

    Vectors have no such axes, and behind a `Permute` or `Reshape` they are the author's.

    Args:
        model: any model.
        inputs: specs of its inputs.
        taps: of the model.

    Raises:
        ValueError: one is.
    """
    taps = [tap for tap in taps if not tap.is_scores]
    if not taps or not channels_first_layers(model):
        return
    of_layers = leaves_of(model)
    plain, found = [tap for tap in taps if not tap.is_gradient], []
    below = flatten_layers(model)
    has_steps = any(isinstance(layer, layers.TimeDistributed) for layer in below)

    def run(inputs):
        with record(of_layers, model=model) as notes:
            outputs, tensors = forward(model, inputs, plain, training=False)
        calls = [(layer, call) for layer in of_layers for call in notes[id(layer)]]
        ranks = {_rank(call[0]) for layer, call in calls if _is_channels_first(layer)}
        ranks |= {rank + 1 for rank in ranks if has_steps}
        for tap, tensor in tensors.items():
            makers = [layer for layer, call in calls if _first(call[1]) is tensor]
            found.append((tap, _rank(tensor) in ranks and not _is_arranged(makers)))
        image = keras.tree.flatten(inputs)[0]
        found.extend((t, _rank(image) in ranks) for t in taps if t.is_gradient)
        return outputs

    trace(run, inputs)
    for tap, is_wrong in found:
        if is_wrong:
            raise ValueError(channels_first_error(model, f"the tap '{tap}'"))


def channels_first_error(model: keras.Layer, what: str) -> str:
    """Return the text of an error about a part of a model with channels first."""
    layer = channels_first_layers(model)[0]
    return (
        f"'{model.name}' computes with channels_first (layer '{layer.name}'), so {what} "
        "has its channels before height and width, where losses and adapters take them "
        "last. Build the model with data_format='channels_last', whose weights have the "
        "same shapes, and copy them with set_weights."
    )


def _is_channels_first(layer) -> bool:
    # A Flatten gives vectors.
    first = getattr(layer, "data_format", None) == "channels_first"
    return first and not isinstance(layer, layers.Flatten)


def _is_arranged(makers: list) -> bool:
    """Whether the layers that made a tensor say that its channels are last."""
    return any(
        isinstance(layer, _ARRANGE)
        or getattr(layer, "data_format", None) == "channels_last"
        for layer in makers
    )


def _first(tensors):
    return keras.tree.flatten(tensors)[0]


def _rank(tensors) -> int:
    return len(_first(tensors).shape)
