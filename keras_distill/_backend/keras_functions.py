"""Functions of Keras itself in a configuration."""

import inspect

import keras


def serialize(value):
    """Serialize a value, functions of Keras by the module that exports them.

    Keras writes the name of a function alone, and finds those of a few modules by it:
    `keras.applications.resnet.preprocess_input` could not be loaded again.
    """
    if isinstance(value, list):
        return [serialize(item) for item in value]
    if isinstance(value, dict):
        return {key: serialize(item) for key, item in value.items()}
    if not inspect.isfunction(value) or not hasattr(value, "_api_export_path"):
        return keras.saving.serialize_keras_object(value)
    path = value._api_export_path
    module, _, name = (path if isinstance(path, str) else path[0]).rpartition(".")
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": None,
    }
