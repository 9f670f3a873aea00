"""The first call of each layer of a model, found from shapes alone."""

import dataclasses

import keras
from keras import layers

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps import recording, tracing
from keras_distill.taps.layer_paths import find_layer, layer_paths

Shape = tuple[int | None, ...]
LOOPS = layers.RNN, layers.TimeDistributed, layers.Bidirectional
_ATTENTIONS = (
    layers.MultiHeadAttention,
    layers.GroupQueryAttention,
    layers.Attention,
    layers.AdditiveAttention,
)


@dataclasses.dataclass(frozen=True)
class FirstCall:
    """The inputs and outputs of a layer's first call.

    `shape` is that of the outputs for the sizes that they were traced with, `shown` has
    None for those that the model leaves open. `is_output` says that the model returns it.
    """

    path: str
    layer: keras.Layer
    inputs: object
    outputs: object
    shape: Shape
    shown: Shape
    is_output: bool


def first_calls(model: keras.Model, inputs) -> tuple[list[FirstCall], tuple | None]:
    """Return the first call of each layer, and the size of the image or None."""
    specs = [_sized(model, inputs, extra) for extra in (0, 1)]
    calls = _run(model, specs[0])
    size = next(
        (x.shape[1:-1] for x in keras.tree.flatten(specs[0]) if len(x.shape) == 4), None
    )
    if any(None in x.shape[1:] for x in keras.tree.flatten(inputs)):
        # A size that depends on an unknown one is unknown.
        others = {call.path: call.shape for call in _run(model, specs[1])}
        calls = [_without_sizes(x, others.get(x.path, x.shape)) for x in calls]
    return calls, size


def _without_sizes(call: FirstCall, other: Shape) -> FirstCall:
    pairs = zip(call.shape, other, strict=False)
    shown = tuple(a if a == b else None for a, b in pairs)
    return dataclasses.replace(call, shown=shown)


def _sized(model: keras.Model, inputs, extra: int):
    """Return specs of a model's inputs with known sizes.

    Models with learnt positions, as most of keras_hub, declare an unknown length but
    can't be traced with one: they take any up to the number of their positions.
    """
    limits = [8 + extra]
    for layer in flatten_layers(model):
        for name in ("max_sequence_length", "sequence_length"):
            if isinstance(limit := getattr(layer, name, None), int):
                limits.append(max(limit - 1 + extra, 1))
    length, side = min(limits), 64 * (1 + extra)

    def sized(spec):
        unknown = side if len(spec.shape) == 4 else length
        sizes = (unknown if size is None else size for size in spec.shape[1:])
        dtype = keras.backend.standardize_dtype(spec.dtype)
        return keras.KerasTensor((None, *sizes), dtype)

    return keras.tree.map_structure(sized, inputs)


def _run(model: keras.Model, inputs) -> list[FirstCall]:
    """Run a model on shapes; return the first call of each layer, in order."""
    paths, hidden = {}, _hidden(model)
    for path in layer_paths(model):
        paths.setdefault(id(find_layer(model, path)), path)
    found = [find_layer(model, path) for path in paths.values()]
    found = [layer for layer in found if id(layer) not in hidden]
    runs = []

    def run(inputs):
        with recording.record(found, model=model) as notes:
            outputs = model(inputs, training=False)
        first = [(layer, call) for layer in found for call in notes[id(layer)][:1]]
        first.sort(key=lambda pair: pair[1].end)
        returned = {id(x) for x in keras.tree.flatten(outputs)}
        runs.append(
            [
                FirstCall(
                    paths[id(layer)],
                    layer,
                    *call,
                    *(_known(call[1].shape),) * 2,
                    id(call[1]) in returned,
                )
                for layer, call in first
                if hasattr(call[1], "shape")
            ]
        )
        return outputs

    tracing.trace(run, inputs)
    return runs[-1]


def _hidden(model: keras.Model) -> set[int]:
    """Return the ids of layers inside of attention and of loops.

    Queries, keys and values of one name would be compared with those of another.
    """
    around = [
        x for x in flatten_layers(model) if is_attention(x) or isinstance(x, LOOPS)
    ]
    return {id(x) for one in around for x in flatten_layers(one, include_self=False)}


def is_attention(layer: keras.Layer) -> bool:
    """Whether a layer is an attention layer, of Keras or by its name."""
    return isinstance(layer, _ATTENTIONS) or type(layer).__name__.endswith("Attention")


def _known(shape) -> Shape:
    """Return a shape whose unknown sizes are None: JAX and torch have others."""
    sizes = (size if isinstance(size, int) else None for size in shape[1:])
    return (None, *sizes)
