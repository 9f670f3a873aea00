"""Fingerprints of what a cache was made of, to find out when it does not match."""

import functools
import hashlib
import json
from collections.abc import Iterable

import keras
import numpy as np

from keras_distill._backend.files import to_numpy
from keras_distill._backend.keras_graphs import nodes_of, runs_graph
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.data import Samples
from keras_distill.teachers.base_teacher import BaseTeacher


def of_teacher(teacher: BaseTeacher) -> str:
    """Return a digest of a teacher's layers and weights, and of how it averages.

    Names, which Keras numbers from the start in each process, and the states of random
    layers do not matter.
    """
    if not teacher.models and getattr(teacher, "key", None) is None:
        raise ValueError(
            f"A cache can't tell one {type(teacher).__name__} from another. Build it of a "
            "teacher with models, or of kd.FunctionTeacher(f, key='...'), where the key "
            "names this version of the function."
        )
    digest = hashlib.sha256()
    for model in teacher.models:
        _add_layer(digest, model)
    how = [getattr(teacher, "average", None), getattr(teacher, "weights", None)]
    # Left out where they are the default, as in caches of earlier versions.
    names = "predicts", "classes", "key"
    more = (getattr(teacher, name, None) for name in names)
    how += [x for x in more if x is not None]
    digest.update(json.dumps(how).encode())
    return digest.hexdigest()


def of_connections(layers: Iterable[keras.Layer]) -> str:
    """Return a digest of how the operations of functional models are connected.

    Operations that are no layers, such as `x / 2`, are in it with their arguments.

    Args:
        layers: models and layers, with functional models among them or inside of them.
    """
    digest = hashlib.sha256()
    for layer in layers:
        for model in filter(runs_graph, flatten_layers(layer)):
            graph = json.dumps(_connections(model), sort_keys=True, default=_named)
            digest.update(graph.encode())
    return digest.hexdigest()


def of_layer(layer: keras.Layer) -> str:
    """Return a digest of a layer's arguments and weights."""
    digest = hashlib.sha256()
    _add_layer(digest, layer)
    return f"{type(layer).__name__} {digest.hexdigest()}"


def of_samples(samples: Samples) -> str:
    """Return a digest of images and ids."""
    digest = hashlib.sha256()
    add_arrays(digest, [samples.images, samples.ids])
    return digest.hexdigest()


def add_arrays(digest, arrays) -> None:
    """Add arrays, their types and shapes to a digest."""
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        if array.dtype.kind == "O":
            digest.update(repr(array.tolist()).encode())
            continue
        # Types such as bfloat16 are none of a buffer.
        digest.update(np.ascontiguousarray(array).reshape(-1).view("u1").data)


def _add_layer(digest, layer: keras.Layer) -> None:
    """Add the arguments of a layer and of all layers below it, and the weights."""
    for part in flatten_layers(layer):
        digest.update(f"{type(part).__name__} {part.compute_dtype}".encode())
        arguments = _own_arguments(part)
        digest.update(json.dumps(arguments, sort_keys=True, default=_named).encode())
    add_arrays(digest, (to_numpy(variable) for variable in layer.weights))


# Names, states of random layers, and what sublayers add themselves.
_NOT_ARGUMENTS = {"name", "seed", "build_config", "layers", "layer", "dtype"}
_NOT_ARGUMENTS |= {"input_layers", "output_layers", "trainable"}


def _arguments(config):
    """Return a configuration without entries that are counted up or random."""
    if isinstance(config, dict):
        names = (name for name in config if name not in _NOT_ARGUMENTS)
        return {str(name): _arguments(config[name]) for name in names}
    if isinstance(config, (list, tuple)):
        return [_arguments(value) for value in config]
    return config


def _connections(model: keras.Model) -> list:
    """Return the calls in a functional model, tensors and operations by number."""
    numbers = {}

    def numbered(value):
        return f"number {numbers.setdefault(id(value), len(numbers))}"

    def plain(value):
        if isinstance(value, keras.KerasTensor):
            return numbered(value)
        return to_numpy(value) if keras.ops.is_tensor(value) else value

    inputs = [numbered(x) for x in model.inputs]
    calls = [
        [
            type(node.operation).__name__,
            numbered(node.operation),
            keras.tree.map_structure(
                plain, (node.arguments.args, node.arguments.kwargs)
            ),
            # A layer's own digest has its arguments.
            {}
            if isinstance(node.operation, keras.Layer)
            else _own_arguments(node.operation),
            [numbered(x) for x in node.outputs],
        ]
        for node in nodes_of(model)
    ]
    return [inputs, calls, [numbered(x) for x in model.outputs]]


def _own_arguments(operation: keras.Operation) -> dict:
    """Return the arguments of an operation; without a configuration, plain attributes."""
    try:
        return _arguments(operation.get_config())
    except NotImplementedError:
        return {name: x for name, x in vars(operation).items() if _is_plain(name, x)}


def _is_plain(name: str, value) -> bool:
    is_own = not name.startswith("_") and name not in _names_of_keras()
    return is_own and isinstance(value, bool | int | float | str)


@functools.cache
def _names_of_keras() -> set[str]:
    """Return the attributes that Keras sets, also of a model that is compiled."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    return {*vars(model), *vars(model.layers[0]), *_NOT_ARGUMENTS}


def _named(value) -> str:
    """Return a name for what JSON can't hold; an address would differ in each process."""
    if isinstance(value, np.ndarray | np.generic):
        return repr(value.tolist())
    return getattr(value, "__name__", type(value).__name__)
