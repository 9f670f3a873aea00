"""Private parts of Keras's layers and tensors."""

from typing import Any

import keras


class Untracked:
    """Hold a value that is an attribute of a layer, but not trained, counted or saved.

    Keras tracks layers, metrics and variables that are set as attributes of a layer, and
    those in lists and dicts, but does not look into other objects.

    Stands in for a public way to opt an attribute out of tracking; no public issue asks
    for one (keras-team/keras-rs pull request 82 wraps the private one).
    """

    def __init__(self, value: Any):
        self.value = value


def flatten_layers(layer: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """Return a layer and all layers below it, each once.

    Stands in for a public form of `keras.Layer._flatten_layers`, as `submodules` was,
    which tensorflow issue 97403 misses: `keras.Model.layers` has direct layers only.
    """
    return list(layer._flatten_layers(include_self=include_self))


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """Return the direct sublayers of any layer or model.

    Stands in for a public form of `keras.Layer._flatten_layers(recursive=False)`; see
    `flatten_layers`.

    Example:
        >>> [layer.name for layer in kd.taps.sublayers(teacher)]
    """
    return list(layer._flatten_layers(include_self=False, recursive=False))


def own_trainable_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Return the trainable variables of a layer itself, without those of its sublayers.

    Stands in for a public form of `keras.Layer._trainable_variables`; no public issue
    asks for it.
    """
    return list(layer._trainable_variables)


def mask_of(tensor):
    """Return the mask `(B, L)` that Keras layers passed along with a tensor, or None.

    Stands in for a public form of `keras.src.backend.get_keras_mask`, for which no public
    issue asks: on JAX the mask is not an attribute of the tensor.

    Example:
        >>> embed = keras.layers.Embedding(9, 4, mask_zero=True)
        >>> ops.convert_to_numpy(kd.taps.mask_of(embed(np.array([[3, 5, 0]]))))
        array([[ True,  True, False]])
    """
    from keras.src.backend import get_keras_mask

    return get_keras_mask(tensor)


def with_mask(tensor, mask):
    """Return a tensor after a mask, or None for none, was set as its Keras mask.

    Stands in for a public form of `keras.src.backend.set_keras_mask`, for which no public
    issue asks.
    """
    from keras.src.backend import set_keras_mask

    set_keras_mask(tensor, mask)
    return tensor
