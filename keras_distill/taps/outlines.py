"""What a pass would do, told from shapes alone."""

from __future__ import annotations

import functools

import keras

from keras_distill._backend.keras_layers import flatten_layers, sublayers
from keras_distill.taps.layer_paths import layers_of, leaves_of
from keras_distill.taps.passes import forward, has_all
from keras_distill.taps.recording import record
from keras_distill.taps.tap import Tap
from keras_distill.taps.tracing import trace
from keras_distill.taps.values import called


def outline(model: keras.Layer, inputs) -> tuple[object, keras.Layer | None]:
    """Give the specs of a model's outputs, and the layer, however deep, that made it.

    Args:
        model: any model.
        inputs: specs of its inputs.

    Returns:
        Specs, and the last layer; None if the model's own code makes the output, or if
        there are several outputs.

    Example:
        >>> specs, head = kd.taps.outline(teacher, keras.KerasTensor((None, 32, 32, 3)))
    """
    leaves, last = leaves_of(model), []

    def run(inputs):
        with record(leaves) as calls:
            outputs = model(inputs, training=False)
        made = (x for x in leaves if any(y is outputs for _, y in calls[id(x)]))
        last.append(next(made, None))
        return outputs

    return trace(run, inputs), last[-1]


def layers_up_to(model: keras.Layer, inputs, tap: Tap) -> list[keras.Layer]:
    """List the layers that run until a tap has its value, the model itself among them.

    With a layer that ran to its end go all below it: a recurrent layer, for one, may
    compute for its cell.

    Args:
        model: any model.
        inputs: specs of what it takes.
        tap: of a layer.

    Raises:
        ValueError: there is no such layer, or it is not called.

    Example:
        >>> guided = kd.taps.layers_up_to(student, student.inputs[0], kd.Tap("stack2"))
    """
    layers, found = layers_of(model, [tap]), [model]
    below = list(flatten_layers(model, include_self=False))

    def run(inputs):
        with record(below, functools.partial(has_all, layers)) as calls:
            model(inputs, training=False)
        for layer in below:
            # A call that was not over is that of the layer whose input is tapped, or of
            # one around it.
            if any(len(call) > 1 for call in calls[id(layer)]):
                found.extend(flatten_layers(layer))
            elif calls[id(layer)] and sublayers(layer):
                found.append(layer)
        return called(model, calls[id(layers[tap])], tap)

    trace(run, inputs)
    return list({id(layer): layer for layer in found}.values())


def norms_of(model: keras.Layer, inputs, tap: Tap) -> list[keras.Layer]:
    """Find the batch normalisations that make a tapped tensor.

    That is one, or, where a layer adds up branches, as at the end of a residual block,
    those of the branches that end in one.

    Args:
        model: any model.
        inputs: specs of its inputs.
        tap: of what the layer gives, as the input of the activation behind it.

    Raises:
        ValueError: something else makes it.

    Example:
        >>> tap = kd.Tap("stack2", side="input")
        >>> kd.taps.norms_of(teacher, teacher.inputs[0], tap)
    """
    layers = flatten_layers(model)
    norms = [layer for layer in layers if _is_normalization(layer)]
    sums = [layer for layer in layers if isinstance(layer, keras.layers.Add)]
    found = []

    def run(inputs):
        with record(norms + sums) as calls:
            outputs, tapped = forward(model, inputs, [tap], training=False)
        parts = [tapped[tap]]
        for given, made in (call for layer in sums for call in calls[id(layer)]):
            parts = keras.tree.flatten(given) if made is tapped[tap] else parts
        made = [(layer, y) for layer in norms for _, y in calls[id(layer)]]
        found.append([layer for layer, y in made if any(y is part for part in parts)])
        return outputs

    trace(run, inputs)
    if not found[-1]:
        raise ValueError(
            f"No batch normalisation of '{model.name}' makes what the tap '{tap}' gives. "
            "Tap one, or the input of the activation that follows it, as "
            f"kd.Tap('{tap.path}', side='input')."
        )
    return found[-1]


def _is_normalization(layer) -> bool:
    frozen = getattr(layer, "stands_for_batch_normalization", False)
    return frozen or isinstance(layer, keras.layers.BatchNormalization)
