"""Preprocessing of their own that models run in `fit`, as the tasks of keras_hub do."""

import hashlib
import json
import pathlib
import tempfile
from collections.abc import Callable

import keras

from keras_distill._backend.keras_layers import flatten_layers


def preprocessing_of(model) -> Callable | None:
    """Return the function that a model's own `fit` maps over raw batches, or None.

    It is that of keras_hub's tasks, `preprocess_samples(x, y, sample_weight)`, which a
    `preprocessor` of None switches off.
    """
    function = getattr(model, "preprocess_samples", None)
    if not callable(function) or getattr(model, "preprocessor", function) is None:
        return None
    return function


def carry_preprocessing(model: keras.Model, copy: keras.Model) -> keras.Model:
    """Carry preprocessing over to a copy of a model, which Keras makes without it.

    A copy of the model's class has a preprocessor of its own, by its configuration, and
    gets the vocabulary, which is in no configuration.

    Returns:
        The copy.
    """
    function = preprocessing_of(model)
    if function is None:
        return copy
    if preprocessing_of(copy) is None:
        # A bound method is no layer, so that Keras neither tracks nor saves it.
        copy.preprocess_samples = function
        return copy
    pair = [getattr(x, "preprocessor", None) for x in (model, copy)]
    if pair[0] is not pair[1] and all(isinstance(x, keras.Layer) for x in pair):
        # Packers, which have no assets, are built with the first batch.
        for layer, new in zip(*map(_with_assets, pair), strict=True):
            _copy_assets(layer, new)
    return copy


def _with_assets(preprocessor: keras.Layer) -> list[keras.Layer]:
    def keeps(layer):
        methods = (getattr(layer, f"{x}_assets", None) for x in ("save", "load"))
        return all(map(callable, methods))

    return [layer for layer in flatten_layers(preprocessor) if keeps(layer)]


def _copy_assets(layer: keras.Layer, copy: keras.Layer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        if any(pathlib.Path(folder).iterdir()):
            copy.load_assets(folder)


def renew_assets(model) -> None:
    """Load what tokenizers of sentence pieces keep in TensorFlow, which may have lost it."""
    owner = getattr(preprocessing_of(model), "__self__", None)
    preprocessor = getattr(owner, "preprocessor", None)
    if not isinstance(preprocessor, keras.Layer):
        return
    for layer in flatten_layers(preprocessor):
        proto = getattr(layer, "proto", None)
        if proto is not None and callable(getattr(layer, "set_proto", None)):
            layer.set_proto(proto)


def fingerprint(model: keras.Model) -> str:
    """Return a digest that is the same for models of equal preprocessing.

    It is of the preprocessor's configuration without names, and of its assets, such as
    the vocabulary of a tokenizer.
    """
    function = preprocessing_of(model)
    if function is None:
        return "none"
    owner = getattr(function, "__self__", None)
    preprocessor = getattr(owner, "preprocessor", None)
    if not isinstance(preprocessor, keras.Layer):
        return f"{id(function) if owner is None else id(preprocessor or owner)}"
    code = getattr(function, "__func__", function)
    config = _without_names(keras.saving.serialize_keras_object(preprocessor))
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(f"{code.__module__}.{code.__qualname__}".encode())
    for layer in flatten_layers(preprocessor):
        _add_assets(digest, layer)
    return digest.hexdigest()


def _without_names(config):
    if isinstance(config, dict):
        kept = {key: x for key, x in config.items() if key != "name"}
        return {key: _without_names(x) for key, x in kept.items()}
    if isinstance(config, (list, tuple)):
        return [_without_names(x) for x in config]
    return config


def _add_assets(digest, layer: keras.Layer) -> None:
    """Add what a layer saves beside its weights, such as a vocabulary, to a digest."""
    if not callable(getattr(layer, "save_assets", None)):
        return
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.is_file():
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
