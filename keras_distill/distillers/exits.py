"""Exits: heads on layers inside a model, that predict before its end."""

import functools
import itertools

import keras
import numpy as np
from keras import layers, ops

from keras_distill._backend import gradients
from keras_distill._backend.keras_graphs import nodes_of
from keras_distill.adapters.adapter import LAST
from keras_distill.taps.layouts import channels_first_error, channels_first_layers

DEEPEST = "deepest"


def with_exits(net: keras.Model, exits, features: str | None) -> keras.Model:
    """Return a functional model with an exit on each of some layers.

    An exit is a pooling, except where the model's output has steps or locations too, and
    a dense layer; with `features`, convolutions of stride 2 before them reduce its layer
    to the shape of that one.

    Args:
        net: functional, with one output of logits.
        exits: names of layers.
        features: name of the deepest layer, whose shape exits take, or None.

    Returns:
        A model from the net's inputs to a dict of logits, by the layers' names, with the
        net's own as `"deepest"`.
    """
    _check_exits(net, exits, features)
    tensors, (output,) = outputs_of_layers(net), net.outputs
    classes = output.shape[-1]
    target = None if features is None else tensors[features].shape
    outputs = {}
    for name in exits:
        x = tensors[name]
        if target is not None:
            x = _reduced(target, x, name)
        if len(x.shape) != len(output.shape):
            if len(output.shape) > 2:
                raise ValueError(
                    f"The exit '{name}' has the shape {tuple(x.shape)}, from which one "
                    f"dense layer cannot reach logits {tuple(output.shape)}. Exit at "
                    "a layer of the same length or size."
                )
            x = _pooled(x, name)
        outputs[name] = layers.Dense(classes, name=f"{name}_exit")(x)
    outputs[DEEPEST] = output
    return keras.Model(single(net.inputs), outputs, name=f"{net.name}_with_exits")


def single(inputs: list):
    """Return the input of a model that has one, else all, for a model to take it so."""
    return inputs[0] if len(inputs) == 1 else inputs


def outputs_of_layers(net: keras.Model) -> dict:
    """Return the output of each layer of a functional or sequential net, by its name.

    That of a layer that is called several times is a list.
    """
    # A layer's own `output` is undefined after calls in several nets, which a sequential
    # one makes as it grows.
    outputs = {}
    for node in nodes_of(keras.Model(net.inputs, net.outputs)):
        outputs.setdefault(node.operation.name, []).extend(node.outputs)
    return {name: x[0] if len(x) == 1 else x for name, x in outputs.items()}


def check_gradients(net: keras.Model, exits, inputs) -> None:
    """Check that the gradient of the output reaches every layer with an exit.

    Args:
        net: functional, with one output.
        exits: names of layers.
        inputs: a batch of what the net takes.

    Raises:
        ValueError: it is stopped on every path from the output to a layer.
    """
    found = outputs_of_layers(net)
    tensors = [found[name] for name in exits]
    both = keras.Model(net.inputs, [net.inputs, tensors])
    inputs, values = both(inputs, training=False)
    for name, tensor, value in zip(exits, tensors, values, strict=True):
        rest = keras.Model([*net.inputs, tensor], *net.outputs)
        if not _reaches(rest, inputs, value):
            raise ValueError(
                f"No exit can be at '{name}': no gradient reaches it from the output of "
                f"'{net.name}', as a layer between them stops it. Name another layer."
            )


def _reaches(rest: keras.Model, inputs, value) -> bool:
    """Whether the output has a gradient with respect to a layer's value."""

    def function(value, training):
        outputs = rest([*inputs, value], training=training)
        # The value itself, so that a score that ignores it has a gradient, of zeros.
        return {"score": ops.sum(ops.sin(outputs)) + 0.0 * ops.sum(value)}, None

    rng = np.random.default_rng(0)
    # A zero gradient counts only if it is zero with perturbed weights too, in training
    # and in inference form.
    for spread, training in itertools.product((0.0, 0.1), (False, True)):
        run = functools.partial(function, training=training)
        others = [
            (v, v.value + ops.convert_to_tensor(spread * rng.random(v.shape), v.dtype))
            for v in rest.variables
            if keras.backend.is_float_dtype(v.dtype)
        ]
        with keras.StatelessScope(others):
            gradient, _ = gradients.by_input(run, value, rest)
        gradients.forget_gradients(rest)
        if np.any(ops.convert_to_numpy(gradient["score"]) != 0.0):
            return True
    return False


def bottleneck_of(exit: str) -> str:
    """Return the name of the layer that is compared with the deepest features."""
    return f"{exit}_bottleneck"


def _reduced(target, x, name):
    """Halve height and width until they are the target's; project to its channels."""
    if len(target) == 2 < len(x.shape):
        x = _pooled(x, name)
    sizes = [tuple(shape[1:-1]) for shape in (x.shape, target)]
    if len(sizes[0]) != len(sizes[1]) or (
        sizes[0] != sizes[1] and None in sum(sizes, ())
    ):
        raise ValueError(
            f"The exit '{name}' has the shape {tuple(x.shape)} and the features have "
            f"{tuple(target)}: both must be maps, sequences or vectors, of known sizes. "
            "Name as features a layer before the pooling, or leave out features=."
        )
    steps = 0
    while sizes[0] != sizes[1]:
        if len(sizes[0]) != 2 or min(sizes[0]) <= min(sizes[1]):
            raise ValueError(
                f"The exit '{name}' has the shape {tuple(x.shape)}, which convolutions of "
                f"stride 2 cannot reduce to that of the features, {tuple(target)}. Exit "
                "at another layer, or leave out features=."
            )
        sizes[0] = tuple(-(-size // 2) for size in sizes[0])
        steps += 1
    for step in range(max(steps, 1)):
        last = step == max(steps, 1) - 1
        stride = 2 if steps else 1
        channels = target[-1] if last else x.shape[-1] * 2
        layer = (
            layers.Conv2D(channels, 3, stride, "same", LAST, use_bias=False)
            if len(target) == 4
            else layers.Dense(channels, use_bias=False)
        )
        layer.name = f"{name}_exit_step{step}"
        x = layers.BatchNormalization(name=f"{name}_exit_norm{step}")(layer(x))
        output = bottleneck_of(name) if last else f"{name}_exit_relu{step}"
        x = layers.ReLU(name=output)(x)
    return x


def _pooled(x, name):
    """Return the mean over all steps or locations."""
    pooling = {
        3: layers.GlobalAveragePooling1D,
        4: layers.GlobalAveragePooling2D,
        5: layers.GlobalAveragePooling3D,
    }
    return pooling[len(x.shape)](LAST, name=f"{name}_exit_pool")(x)


def _check_exits(net, exits, features) -> None:
    if not isinstance(net, keras.Model) or not getattr(net, "inputs", None):
        raise TypeError(
            "Exits are built on a functional or sequential keras.Model whose inputs are "
            f"known; got {type(net).__name__}. Begin a keras.Sequential with a "
            "keras.Input, or call it on a batch first."
        )
    if len(net.outputs) != 1:
        raise ValueError(f"'{net.name}' has {len(net.outputs)} outputs; expected one.")
    if not exits or len(set(exits)) < len(exits):
        raise ValueError(f"Exits are one or more different layers; got {list(exits)}.")
    names, tensors = [layer.name for layer in net.layers], outputs_of_layers(net)
    for name in [*exits, *([features] if features else [])]:
        if name not in names or name not in tensors:
            raise ValueError(
                f"'{net.name}' has no layer '{name}' on the way to its output; an exit is "
                f"at one of {', '.join(names)}."
            )
        x = tensors[name]
        if channels_first_layers(net) and len(getattr(x, "shape", ())) > 2:
            raise ValueError(channels_first_error(net, f"the exit '{name}'"))
        is_single = not isinstance(x, (list, tuple, dict))
        is_single &= not isinstance(net.get_layer(name), layers.InputLayer)
        last = is_single and x is net.outputs[0]
        if not is_single or not keras.backend.is_float_dtype(x.dtype) or last:
            raise ValueError(
                f"No exit can be at '{name}': it is not one tensor of real numbers "
                "before the output, which a gradient reaches, or of several calls. Name "
                "another layer."
            )
