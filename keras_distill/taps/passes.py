"""A pass of a model that notes what is tapped, whole or no further than it must."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

import keras

from keras_distill._backend import gradients
from keras_distill.taps.layer_paths import layers_of, leaves_of
from keras_distill.taps.recording import record
from keras_distill.taps.tap import MIRRORED_GRADIENT, Tap
from keras_distill.taps.values import called, is_noted, output


def forward(
    model: keras.Layer,
    inputs,
    taps: Iterable[Tap],
    *,
    training: bool,
    scores: Mapping[str, Callable] | None = None,
) -> tuple[object, dict[Tap, object]]:
    """Run a model once, for mirrored taps twice; give its output and what is tapped.

    Args:
        model: student or teacher.
        inputs: what the model takes.
        taps: what to keep of the pass.
        training: training or inference form.
        scores: for each tapped gradient, what is differentiated: a function from the
            model's output to a scalar.

    Returns:
        The model's output, and a dict from each tap to its tensor.

    Raises:
        ValueError: a tapped layer was not called, or not that often.

    Example:
        >>> tap = kd.Tap("stack2")
        >>> logits, tapped = kd.taps.forward(teacher, images, [tap], training=False)
    """
    slopes = [tap for tap in taps if tap.is_gradient]
    taps = [tap for tap in taps if not tap.is_gradient]
    if not slopes:
        return _run(model, inputs, taps, training)

    wanted = {tap.path for tap in slopes}

    def run(image, wanted=wanted - {MIRRORED_GRADIENT}, taps=taps):
        whole = keras.tree.pack_sequence_as(inputs, [image])
        outputs, tapped = _run(model, whole, taps, training)
        return {path: scores[path](outputs) for path in wanted}, (outputs, tapped)

    image = keras.ops.convert_to_tensor(*keras.tree.flatten(inputs))
    found = {}
    # First the mirrored pass: what a layer adds to the loss is that of its last call.
    if MIRRORED_GRADIENT in wanted:
        mirror = functools.partial(run, wanted={MIRRORED_GRADIENT}, taps=())
        mirrored, _ = gradients.by_input(mirror, _mirrored(image), model.variables)
        found[MIRRORED_GRADIENT] = _mirrored(mirrored[MIRRORED_GRADIENT])
    plain, (outputs, tapped) = gradients.by_input(run, image, model.variables)
    found.update(plain)
    return outputs, {**tapped, **{tap: found[tap.path] for tap in slopes}}


def up_to(
    model: keras.Layer,
    inputs,
    taps: Iterable[Tap],
    *,
    training: bool = False,
    scores: Mapping[str, Callable] | None = None,
) -> dict[Tap, object]:
    """Run a model as far as the deepest tap; give what is tapped.

    Where only layers are tapped, nothing behind the last of them runs: no head, on no
    backend, compiled or not.

    Args:
        model: a teacher, or a student of which no more is needed.
        inputs, taps, scores: as in `forward`.
        training: training or, by default, inference form.

    Returns:
        A dict from each tap to its tensor.

    Raises:
        ValueError: a tapped layer was not called, or not that often.

    Example:
        >>> kd.taps.up_to(teacher, images, [kd.Tap("stack2")])
    """
    taps = tuple(taps)
    if any(tap.is_gradient or tap.is_logits for tap in taps):
        return forward(model, inputs, taps, training=training, scores=scores)[1]
    layers = layers_of(model, taps)
    enough = functools.partial(has_all, layers)
    listened = list(layers.values())
    if training:
        # Masks are put on a layer's output behind its call: go on to the next one's.
        leaves = leaves_of(model)
        enough = functools.partial(_has_all_and_goes_on, layers, leaves)
        listened += leaves
    with record(listened, enough) as calls:
        model(inputs, training=training)
    return {tap: called(model, calls[id(layer)], tap) for tap, layer in layers.items()}


def _run(model, inputs, taps, training) -> tuple[object, dict[Tap, object]]:
    layers = layers_of(model, taps)
    with record(layers.values()) as calls:
        outputs = model(inputs, training=training)
    tapped = {}
    for tap in taps:
        if tap.is_logits:
            tapped[tap] = output(model, outputs, tap)
        else:
            tapped[tap] = called(model, calls[id(layers[tap])], tap)
    return outputs, tapped


def _mirrored(images):
    """Swap left and right of images `(B, H, W, C)`."""
    return keras.ops.flip(images, axis=2)


def has_all(layers: dict, calls) -> bool:
    """Tell whether the calls up to now give each tap its value."""
    return all(is_noted(calls[id(layer)], tap) for tap, layer in layers.items())


def _has_all_and_goes_on(layers: dict, leaves, calls) -> bool:
    begun = (len(call) == 1 for x in leaves for call in calls[id(x)])
    return has_all(layers, calls) and any(begun)
