"""Fingerprints: what a cache was made of, so that another is not taken for it."""

from __future__ import annotations

import hashlib
import json

import keras
import numpy as np
from keras import ops

from keras_distill.data import Samples
from keras_distill.teachers import Teacher


def of_teacher(teacher: Teacher) -> str:
    """Give a digest of a teacher's layers and weights, and of how it averages.

    Names, which Keras counts up anew in each process, do not matter, nor the states of
    random layers.
    """
    digest = hashlib.sha256()
    for model in teacher.models:
        kinds = [type(layer).__name__ for layer in model._flatten_layers()]
        digest.update(json.dumps(kinds).encode())
        for variable in model.weights:
            digest.update(f"{variable.shape}{variable.dtype}".encode())
            digest.update(np.ascontiguousarray(_array(variable)).data)
    how = [getattr(teacher, "average", None), getattr(teacher, "weights", None)]
    digest.update(json.dumps(how).encode())
    return digest.hexdigest()


def of_layer(layer: keras.Layer) -> str:
    """Give a digest of a layer's arguments and weights."""
    config = {name: x for name, x in layer.get_config().items() if name != "name"}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=repr).encode())
    for variable in layer.weights:
        digest.update(np.ascontiguousarray(_array(variable)).data)
    return f"{type(layer).__name__} {digest.hexdigest()}"


def of_samples(samples: Samples) -> str:
    """Give a digest of images and ids."""
    digest = hashlib.sha256(f"{samples.images.dtype}{samples.images.shape}".encode())
    for array in (samples.images, samples.ids):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


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


def _short(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:24] + "..."


def _array(variable):
    wide = keras.backend.standardize_dtype(variable.dtype) == "bfloat16"
    return ops.convert_to_numpy(ops.cast(variable, "float32") if wide else variable)
