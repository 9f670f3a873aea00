"""Whether the tensors of a model can have a Keras mask."""

import weakref

import keras

from keras_distill._backend.keras_layers import flatten_layers, mask_of

_without: weakref.WeakSet = weakref.WeakSet()


def may_be_masked(model: keras.Layer, inputs) -> bool:
    """Whether a layer of a model makes a mask, or its inputs have one."""
    if any(mask_of(x) is not None for x in keras.tree.flatten(inputs)):
        return True
    if model in _without:
        return False
    if any(map(_makes_masks, flatten_layers(model))):
        return True
    _without.add(model)
    return False


def _makes_masks(layer) -> bool:
    if isinstance(layer, keras.layers.Embedding):
        return layer.mask_zero
    if isinstance(layer, (keras.layers.Masking, keras.layers.Lambda)):
        return True
    # Other layers of Keras itself pass masks on.
    return not type(layer).compute_mask.__module__.startswith("keras.")
