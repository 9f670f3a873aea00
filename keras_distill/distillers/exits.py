"""Exits: heads on layers inside a net, that predict before its end."""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
from keras import layers, ops

from keras_distill._backend import gradients
from keras_distill.taps import heads
from keras_distill.teachers.teacher import Teacher

DEEPEST = "deepest"


class OwnTeacher(Teacher):
    """A net that teaches itself: what it knows comes out of its one run.

    Args:
        model: the net with its exits.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self._norms = {}

    @property
    def models(self) -> tuple:
        """Give no model: none runs beside the student."""
        return ()


def with_exits(net: keras.Model, exits, features: str | None) -> keras.Model:
    """Give a functional net an exit on each of some layers.

    An exit is a pooling, but where the net's output has places too, and a dense layer;
    with `features` before them convolutions of stride 2 that bring its layer to the
    shape of that one.

    Args:
        net: functional, of one output of logits.
        exits: names of layers.
        features: name of the deepest layer whose shape exits take, or None.

    Returns:
        A model from the net's inputs to a dict of logits, by the layers' names, and the
        net's own as `"deepest"`.
    """
    _can_have_exits(net, exits, features)
    classes = net.output.shape[-1]
    target = None if features is None else net.get_layer(features).output.shape
    outputs = {}
    for name in exits:
        x = net.get_layer(name).output
        if target is not None:
            x = _brought_to(target, x, name)
        if len(x.shape) != len(net.output.shape):
            if len(net.output.shape) > 2:
                raise ValueError(
                    f"The exit '{name}' has the shape {tuple(x.shape)}, from which one "
                    f"dense layer does not come to logits {tuple(net.output.shape)}. "
                    "Exit at a layer of the same places."
                )
            is_map = len(x.shape) == 4
            made = (
                layers.GlobalAveragePooling2D
                if is_map
                else layers.GlobalAveragePooling1D
            )
            x = made(name=f"{name}_exit_pool")(x)
        outputs[name] = layers.Dense(classes, name=f"{name}_exit")(x)
    outputs[DEEPEST] = net.output
    return keras.Model(net.inputs, outputs, name=f"{net.name}_with_exits")


def have_gradients(net: keras.Model, exits, inputs) -> None:
    """Refuse exits on layers that training the net does not reach from its output.

    Args:
        net: functional, of one output.
        exits: names of layers.
        inputs: a batch of what the net takes.

    Raises:
        ValueError: the gradient is stopped everywhere between a layer and the output.
    """
    tensors = [net.get_layer(name).output for name in exits]
    both = keras.Model(net.inputs, [net.inputs, tensors])
    inputs, values = both(inputs, training=False)
    for name, tensor, value in zip(exits, tensors, values, strict=True):
        rest = keras.Model([*net.inputs, tensor], net.output)
        if not _reaches(rest, inputs, value):
            raise ValueError(
                f"No exit can be at '{name}': no gradient comes to it from the output of "
                f"'{net.name}', as something between them stops it. Name another layer."
            )


def _reaches(rest: keras.Model, inputs, value) -> bool:
    """Tell whether what a net makes of its inputs and a layer's value has a gradient."""

    def function(value, training):
        outputs = rest([*inputs, value], training=training)
        # The value itself, so that what does not reach it has a gradient, of zeros.
        return {"score": ops.sum(ops.sin(outputs)) + 0.0 * ops.sum(value)}, None

    rng = np.random.default_rng(0)
    # A weight may be zero now that is not later, and a layer hard in inference alone, so
    # a zero counts for other weights and in both forms.
    for spread, training in itertools.product((0.0, 0.1), (False, True)):
        run = functools.partial(function, training=training)
        others = [
            (v, v.value + ops.convert_to_tensor(spread * rng.random(v.shape), v.dtype))
            for v in rest.variables
            if keras.backend.is_float_dtype(v.dtype)
        ]
        with keras.StatelessScope(others):
            slopes, _ = gradients.by_input(run, value, rest.variables)
        gradients.forget(rest)
        if np.any(ops.convert_to_numpy(slopes["score"]) != 0.0):
            return True
    return False


def bottleneck_of(exit: str) -> str:
    """Give the name of the layer that is compared with the deepest features."""
    return f"{exit}_bottleneck"


def _brought_to(target, x, name):
    """Halve the height and width until they are the target's; take its channels."""
    places = [tuple(shape[1:-1]) for shape in (x.shape, target)]
    steps = 0
    while places[0] != places[1]:
        if len(places[0]) != 2 or min(places[0]) <= min(places[1]):
            raise ValueError(
                f"The exit '{name}' has the shape {tuple(x.shape)}, which convolutions of "
                f"stride 2 can't bring to that of the features, {tuple(target)}. Exit at "
                "another layer, or leave out features=."
            )
        places[0] = tuple(-(-size // 2) for size in places[0])
        steps += 1
    for step in range(max(steps, 1)):
        last = step == max(steps, 1) - 1
        stride = 2 if steps else 1
        channels = target[-1] if last else x.shape[-1] * 2
        made = (
            layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)
            if len(target) == 4
            else layers.Dense(channels, use_bias=False)
        )
        made.name = f"{name}_exit_step{step}"
        x = layers.BatchNormalization(name=f"{name}_exit_norm{step}")(made(x))
        own = bottleneck_of(name) if last else f"{name}_exit_relu{step}"
        x = layers.ReLU(name=own)(x)
    return x


def _can_have_exits(net, exits, features) -> None:
    if not isinstance(net, keras.Model) or not getattr(net, "inputs", None):
        raise TypeError(
            "Exits are built on a functional keras.Model, whose layers' outputs are known; "
            f"got {type(net).__name__}."
        )
    if len(net.outputs) != 1:
        raise ValueError(
            f"'{net.name}' has {len(net.outputs)} outputs; one is expected."
        )
    heads.must_give_logits(net, "net")
    if not exits or len(set(exits)) < len(exits):
        raise ValueError(f"Exits are one or more different layers; got {list(exits)}.")
    names = [layer.name for layer in net.layers]
    for name in [*exits, *([features] if features else [])]:
        if name not in names:
            raise ValueError(
                f"'{net.name}' has no layer '{name}' on the way to its output; an exit is "
                f"at one of {', '.join(names)}."
            )
        x = net.get_layer(name).output
        single = not isinstance(x, (list, tuple, dict))
        single &= not isinstance(net.get_layer(name), layers.InputLayer)
        if not single or not keras.backend.is_float_dtype(x.dtype) or x is net.output:
            raise ValueError(
                f"No exit can be at '{name}': it is not one tensor of real numbers "
                "before the output, through which a gradient comes. Name another layer."
            )


def stopped(features: dict, taps) -> dict:
    """Give what some taps know, without gradient."""
    return {tap: ops.stop_gradient(features[tap]) for tap in taps}
