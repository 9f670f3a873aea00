"""What a pass would do, found from shapes alone."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import keras

from keras_distill._backend.keras_layers import flatten_layers, sublayers
from keras_distill.taps import call_order
from keras_distill.taps.layer_paths import leaves_of
from keras_distill.taps.passes import forward, has_all
from keras_distill.taps.recording import record
from keras_distill.taps.tap import MIRRORED_GRADIENT, Tap
from keras_distill.taps.tracing import trace
from keras_distill.taps.values import Wanted, check_called


def outline(model: keras.Layer, inputs) -> tuple[object, keras.Layer | None]:
    """Return the specs of a model's outputs, and the innermost layer that returns them.

    Args:
        model: any model.
        inputs: specs of its inputs.

    Returns:
        Specs, and the last layer; None if the model's own code computes the output, or
        if there are several outputs.

    Example:
        >>> specs, head = kd.taps.outline(teacher, keras.KerasTensor((None, 8, 8, 1)))
        >>> head.name
        'logits'
    """
    leaves, last = leaves_of(model), []

    def run(inputs):
        with record(leaves, model=model) as notes:
            outputs = model(inputs, training=False)
        heads = (x for x in leaves if any(y is outputs for _, y in notes[id(x)]))
        last.append(next(heads, None))
        return outputs

    return trace(run, inputs), last[-1]


def tap_shapes(run: Callable, inputs, taps: Sequence[Tap]) -> dict[str, list]:
    """Return the shape of each tap, batch first, by the tap's text.

    Args:
        run: from inputs and taps, none of them gradients, to their tensors in order.
        inputs: specs of what the model takes.
        taps: of the model.
    """
    traced = [tap for tap in taps if not tap.is_gradient]
    specs = trace(lambda x: run(x, traced), inputs)
    shapes = {str(tap): list(x.shape) for tap, x in zip(traced, specs, strict=False)}
    # A gradient has the shape of the input.
    gradients = [tap for tap in taps if tap.is_gradient]
    return shapes | {str(tap): list(_image(inputs, tap).shape) for tap in gradients}


def shapes_of(model: keras.Layer, inputs, taps: Sequence[Tap]) -> dict[str, list]:
    """Return the shape of each tap of a model, batch first, by the tap's text.

    Args:
        model: any model.
        inputs: specs of its inputs.
        taps: of the model.

    Example:
        >>> kd.taps.shapes_of(student, student.inputs[0], [kd.Tap("stack2")])
    """

    def run(inputs, taps):
        outputs, tensors = forward(model, inputs, taps, training=False)
        return [tensors[tap] for tap in taps] or [outputs]

    return tap_shapes(run, inputs, taps)


def _image(inputs, tap: Tap):
    leaves = keras.tree.flatten(inputs)
    if len(leaves) == 1 and keras.backend.is_float_dtype(leaves[0].dtype):
        rank = len(leaves[0].shape)
        if tap.path == MIRRORED_GRADIENT and rank != 4:
            raise ValueError(
                f"The tap '{tap}' mirrors images (B, H, W, C); the model takes "
                f"{tuple(leaves[0].shape)}."
            )
        return leaves[0]
    raise ValueError(
        f"The tap '{tap}' is a gradient with respect to one input of real numbers; the "
        f"model takes {[(tuple(x.shape), str(x.dtype)) for x in leaves]}. Tap a layer "
        "instead."
    )


def layers_up_to(model: keras.Layer, inputs, tap: Tap) -> list[keras.Layer]:
    """Return the layers that run until a tap is known, the model itself among them.

    All layers below a layer that ran to its end are included: a recurrent layer, for
    one, may compute in place of its cell.

    Args:
        model: any model.
        inputs: specs of what it takes.
        tap: of a layer.

    Raises:
        ValueError: there is no such layer, or it is not called.

    Example:
        >>> guided = kd.taps.layers_up_to(student, student.inputs[0], kd.Tap("stack2"))
    """
    wanted, layers = Wanted.of(model, [tap]), [model]
    layer, reordered = wanted.layers[tap], wanted.reordered
    below = flatten_layers(model, include_self=False)

    def run(inputs, tap):
        enough = functools.partial(has_all, {tap: layer})
        with record(below, enough, model=model) as notes:
            model(inputs, training=False)
        for one in below:
            # An unfinished call is that of the layer whose input is tapped, or of one
            # around it.
            if any(len(call) > 1 for call in notes[id(one)]):
                layers.extend(flatten_layers(one))
            elif notes[id(one)] and sublayers(one):
                layers.append(one)
        check_called(model, notes[id(layer)], tap)
        return inputs

    def as_run(inputs):
        """Return the index, in the order of running, of the call that is tapped."""
        with record(wanted.recorded(), model=model) as notes:
            model(inputs, training=False)
        calls = notes[id(layer)]
        meant = call_order.in_order(calls, notes, reordered)[tap.call : tap.call + 1]
        indices.extend(i for i, x in enumerate(calls) if any(x is y for y in meant))
        return inputs

    indices = []
    if reordered:
        trace(as_run, inputs)
    tap = dataclasses.replace(tap, call=indices[-1] if indices else tap.call)
    trace(lambda x: run(x, tap), inputs)
    return list({id(layer): layer for layer in layers}.values())


def norms_of(model: keras.Layer, inputs, tap: Tap) -> list[keras.Layer]:
    """Return the batch normalizations whose output a tap is.

    That is one, or, where a layer adds branches, as at the end of a residual block,
    those of the branches that end in one.

    Args:
        model: any model.
        inputs: specs of its inputs.
        tap: of the normalized tensor, as the input of the activation after it.

    Raises:
        ValueError: another layer computes it.

    Example:
        >>> tap = kd.Tap("stack2", side="input")
        >>> kd.taps.norms_of(teacher, teacher.inputs[0], tap)
    """
    layers = flatten_layers(model)
    norms = [layer for layer in layers if _is_normalization(layer)]
    sums = [layer for layer in layers if isinstance(layer, keras.layers.Add)]
    found = []

    def run(inputs):
        with record(norms + sums, model=model) as notes:
            outputs, tapped = forward(model, inputs, [tap], training=False)
        parts = [tapped[tap]]
        for branches, total in (call for layer in sums for call in notes[id(layer)]):
            parts = keras.tree.flatten(branches) if total is tapped[tap] else parts
        pairs = [(layer, y) for layer in norms for _, y in notes[id(layer)]]
        found.append([layer for layer, y in pairs if any(y is part for part in parts)])
        return outputs

    trace(run, inputs)
    if not found[-1]:
        raise ValueError(
            f"The tap '{tap}' is not the output of a batch normalization of "
            f"'{model.name}'. Tap one, or the input of the activation after it, as "
            f"kd.Tap('{tap.path}', side='input')."
        )
    return found[-1]


def _is_normalization(layer) -> bool:
    frozen = getattr(layer, "stands_for_batch_normalization", False)
    return frozen or isinstance(layer, keras.layers.BatchNormalization)
