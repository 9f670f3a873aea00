"""A forward pass that returns what is tapped, whole or no further than it must."""

import functools
from collections.abc import Callable, Iterable, Mapping

import keras

from keras_distill._backend import gradients
from keras_distill.taps.layer_paths import leaves_of
from keras_distill.taps.masks import may_be_masked
from keras_distill.taps.recording import record
from keras_distill.taps.tap import MIRRORED_GRADIENT, Tap
from keras_distill.taps.values import Wanted, is_recorded, output_tensor


def forward(
    model: keras.Layer,
    inputs,
    taps: Iterable[Tap],
    *,
    training: bool,
    scores: Mapping[str, Callable] | None = None,
) -> tuple[object, dict[Tap, object]]:
    """Run a model once, for mirrored taps twice; return its output and the taps.

    Args:
        model: student or teacher.
        inputs: what the model takes.
        taps: of the tensors to return.
        training: training or inference form.
        scores: for each tapped gradient, by its path, the function from the model's
            output to the scalar that is differentiated.

    Returns:
        The model's output, and a dict from each tap to its tensor.

    Raises:
        ValueError: a tapped layer was not called, or not that often.

    Example:
        >>> tap = kd.Tap("stack2")
        >>> logits, tapped = kd.taps.forward(teacher, images, [tap], training=False)
    """
    gradient_taps = [tap for tap in taps if tap.is_gradient]
    taps = [tap for tap in taps if not tap.is_gradient]
    if not gradient_taps:
        return _run(model, inputs, taps, training)

    wanted = {tap.path for tap in gradient_taps}

    def run(image, wanted=wanted - {MIRRORED_GRADIENT}, taps=taps):
        whole = keras.tree.pack_sequence_as(inputs, [image])
        outputs, tapped = _run(model, whole, taps, training)
        return {path: scores[path](outputs) for path in wanted}, (outputs, tapped)

    image = keras.ops.convert_to_tensor(*keras.tree.flatten(inputs))
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(image.dtype)):
        # A gradient is by numbers, not by the bytes of an image.
        image = keras.ops.cast(image, keras.config.floatx())
    tensors = {}
    # The mirrored pass comes first: a layer's `add_loss` is that of its last call.
    if MIRRORED_GRADIENT in wanted:
        mirror = functools.partial(run, wanted={MIRRORED_GRADIENT}, taps=())
        mirrored, _ = gradients.by_input(mirror, _mirrored(image), model)
        tensors[MIRRORED_GRADIENT] = _mirrored(mirrored[MIRRORED_GRADIENT])
    plain, (outputs, tapped) = gradients.by_input(run, image, model)
    tensors.update(plain)
    return outputs, {**tapped, **{tap: tensors[tap.path] for tap in gradient_taps}}


def up_to(
    model: keras.Layer,
    inputs,
    taps: Iterable[Tap],
    *,
    training: bool = False,
    scores: Mapping[str, Callable] | None = None,
) -> dict[Tap, object]:
    """Run a model as far as the deepest tap; return the taps.

    Where only layers are tapped, nothing after the last of them runs, the head included,
    on any backend, compiled or not.

    Args:
        model: a teacher, or a student whose output is not needed.
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
    if any(tap.is_gradient or tap.is_output for tap in taps):
        return forward(model, inputs, taps, training=training, scores=scores)[1]
    wanted = Wanted.of(model, taps)
    recorded, enough = wanted.recorded(), None
    if wanted.runs_in_order():
        enough = functools.partial(has_all, wanted.layers)
    if enough and may_be_masked(model, inputs):
        # Keras attaches a mask to a layer's output after its call: run on to the next.
        leaves = leaves_of(model)
        enough = functools.partial(_has_all_and_goes_on, wanted.layers, leaves)
        recorded += leaves
    with record(recorded, enough, model=model, scored=wanted.scored) as notes:
        model(inputs, training=training)
    return wanted.tensors(notes)


def _run(model, inputs, taps, training) -> tuple[object, dict[Tap, object]]:
    wanted = Wanted.of(model, taps)
    recorded, scored = wanted.recorded(), wanted.scored
    with record(recorded, model=model, scored=scored) as notes:
        outputs = model(inputs, training=training)
    found = wanted.tensors(notes)
    return outputs, {
        tap: output_tensor(model, outputs, tap) if tap.is_output else found[tap]
        for tap in taps
    }


def _mirrored(images):
    """Swap left and right of images `(B, H, W, C)`."""
    return keras.ops.flip(images, axis=2)


def has_all(layers: dict, notes) -> bool:
    """Whether the calls so far include the tensor of each tap."""
    return all(is_recorded(notes[id(layer)], tap) for tap, layer in layers.items())


def _has_all_and_goes_on(layers: dict, leaves, notes) -> bool:
    begun = (len(call) == 1 for x in leaves for call in notes[id(x)])
    return has_all(layers, notes) and any(begun)
