"""Fingerprints: what a cache was made of, so that another is not taken for it."""

from __future__ import annotations

import hashlib
import json

import keras
import numpy as np
from keras import ops

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.data import Samples
from keras_distill.teachers.teacher import Teacher


def of_teacher(teacher: Teacher) -> str:
    """Give a digest of a teacher's layers and weights, and of how it averages.

    Names, which Keras counts up anew in each process, do not matter, nor the states of
    random layers.
    """
    digest = hashlib.sha256()
    for model in teacher.models:
        _add_layer(digest, model)
    how = [getattr(teacher, "average", None), getattr(teacher, "weights", None)]
    digest.update(json.dumps(how).encode())
    return digest.hexdigest()


def of_layer(layer: keras.Layer) -> str:
    """Give a digest of a layer's arguments and weights."""
    digest = hashlib.sha256()
    _add_layer(digest, layer)
    return f"{type(layer).__name__} {digest.hexdigest()}"


def of_samples(samples: Samples) -> str:
    """Give a digest of images and ids."""
    digest = hashlib.sha256()
    add_arrays(digest, [samples.images, samples.ids])
    return digest.hexdigest()


def add_arrays(digest, arrays) -> None:
    """Add arrays, their types and shapes to a digest."""
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)


def compare(kept: dict, found: dict, folder) -> None:
    """Check that a cache is of what is asked for.

    Args:
        kept: what the cache was made of, by name.
        found: what is asked for, by name; what is None is not known.
        folder: of the cache.

    Raises:
        ValueError: they differ; the message says in what.
    """
    apart = [
        name for name in found if found[name] is not None and kept[name] != found[name]
    ]
    if apart:
        details = "; ".join(
            f"{name}: kept {_short(kept[name])}, given {_short(found[name])}"
            for name in apart
        )
        raise ValueError(
            f"The cache in '{folder}' was made with another {' and '.join(apart)} "
            f"({details}). Give what it was made with, name another folder, or remove "
            "this one to make it anew."
        )


def _add_layer(digest, layer: keras.Layer) -> None:
    """Add what a layer, and all below it, was made with, and the weights."""
    for part in flatten_layers(layer):
        digest.update(f"{type(part).__name__} {part.compute_dtype}".encode())
        try:
            arguments = _arguments(part.get_config())
        except NotImplementedError:
            # Code of its own that says nothing of its arguments.
            arguments = {}
        digest.update(json.dumps(arguments, sort_keys=True, default=_named).encode())
    add_arrays(digest, (_array(variable) for variable in layer.weights))


# Names, states of random layers, and what stands in the layers below.
_NOT_ARGUMENTS = {"name", "seed", "build_config", "layers", "layer", "dtype"}
_NOT_ARGUMENTS |= {"input_layers", "output_layers", "trainable"}


def _arguments(config):
    """Give what is left of a configuration without what counts up or is random."""
    if isinstance(config, dict):
        kept = (name for name in config if name not in _NOT_ARGUMENTS)
        return {str(name): _arguments(config[name]) for name in kept}
    if isinstance(config, (list, tuple)):
        return [_arguments(value) for value in config]
    return config


def _named(value) -> str:
    """Give the name of what JSON can't hold; an address would be another each time."""
    if isinstance(value, np.ndarray | np.generic):
        return repr(value.tolist())
    return getattr(value, "__name__", type(value).__name__)


def _short(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:24] + "..."


def _array(variable):
    wide = keras.backend.standardize_dtype(variable.dtype) == "bfloat16"
    return ops.convert_to_numpy(ops.cast(variable, "float32") if wide else variable)
