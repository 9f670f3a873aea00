"""The masks of tapped tensors: those of Keras, or padding masks among the inputs."""

import weakref
from collections.abc import Mapping

import keras
from keras import ops

from keras_distill._backend.keras_layers import flatten_layers, mask_of, with_mask
from keras_distill.taps.lengths import Lengths
from keras_distill.taps.tap import Tap

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


def first_mask(tensors):
    """Return the mask of the first of several tensors that has one, or None."""
    masks = map(mask_of, keras.tree.flatten(tensors))
    return next((mask for mask in masks if mask is not None), None)


def masks_of(tensors: Mapping[Tap, object], lengths: Lengths, inputs) -> dict:
    """Return the mask of each tapped tensor that has one, by its tap.

    Args:
        tensors: by tap; of several members, in a list, the mask is that of the first.
        lengths: what the lengths of the tensors come from.
        inputs: that the model took.
    """
    masks = {}
    for tap, tensor in tensors.items():
        found = first_mask(tensor)
        padding = lengths.masks.get(str(tap), ())
        if found is not None:
            masks[tap] = found
        elif len(padding) == 1:
            mask = keras.tree.flatten(inputs)[padding[0].position]
            masks[tap] = ops.cast(ops.convert_to_tensor(mask), "bool")
    return masks


def with_masks(tensors: Mapping[Tap, object], lengths: Lengths, inputs) -> dict:
    """Return a dict of tapped tensors after their masks were set as Keras masks."""
    masks = masks_of(tensors, lengths, inputs)
    for tap, mask in masks.items():
        for tensor in keras.tree.flatten(tensors[tap]):
            with_mask(tensor, mask)
    return dict(tensors)
