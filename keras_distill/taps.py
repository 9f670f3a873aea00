"""Taps: the one place that knows layer paths, call numbers, inputs and outputs.

A tap names a tensor inside a model, which `forward` notes while the model runs.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras

from keras_distill import gradients
from keras_distill.frozen_layers import (
    FOLDED,
    FoldedNormalization,
    InferenceNormalization,
)
from keras_distill.recording import record
from keras_distill.tracing import trace

LOGITS = "logits"
LABEL_GRADIENT, CLASS_GRADIENT = "label_gradient", "class_gradient"
MIRRORED_GRADIENT = "mirrored_label_gradient"
_NORMALIZATIONS = keras.layers.BatchNormalization, InferenceNormalization
GRADIENTS = LABEL_GRADIENT, CLASS_GRADIENT, MIRRORED_GRADIENT


@keras.saving.register_keras_serializable(package="keras_distill")
@dataclasses.dataclass(frozen=True, order=True)
class Tap:
    """A tensor inside a model: what a layer gives, or what it is given.

    Args:
        path: names from the model down to the layer, joined by `/`, as in
            `"backbone/stack2"`; a part may be a layer's name, an attribute of a
            subclassed model or an index into a list attribute. `"logits"` is the
            model's output, `"logits/<name or index>"` one of several outputs.
            `"label_gradient"` is the gradient of the labels' cross-entropy by the
            input, `"class_gradient"` that of the logit of the teacher's first class;
            `"mirrored_label_gradient"` is the first for the image mirrored left to
            right, mirrored back, at one more pass through the model.
        call: which call of a shared layer within one forward pass, from 0.
        side: `"output"` or `"input"` of the layer. A layer that gives or takes
            several tensors is tapped at the first.

    Raises:
        ValueError: `call` is negative or `side` is neither input nor output.

    Example:
        >>> kd.Tap("backbone/stack2", side="input")
    """

    path: str
    call: int = 0
    side: str = "output"

    def __post_init__(self):
        """Check the arguments."""
        if not isinstance(self.path, str) or not self.path.strip("/"):
            raise ValueError(
                f"A tap's path is a layer path such as 'stack2'; got {self.path!r}."
            )
        if not isinstance(self.call, int) or self.call < 0:
            raise ValueError(
                f"A tap's call counts from 0 (0 is the first call); got {self.call!r}."
            )
        if self.side not in ("output", "input"):
            raise ValueError(f"A tap's side is 'output' or 'input'; got {self.side!r}.")

    def __str__(self) -> str:
        """Give the path, and what differs from the defaults."""
        call = f"[call {self.call}]" if self.call else ""
        return self.path + call + (" (input)" if self.side == "input" else "")

    @property
    def is_logits(self) -> bool:
        """Tell whether the tap is the model's output, or that of an ensemble's member."""
        first, *rest = self.path.split("/")
        return first == LOGITS or (first.isdecimal() and rest[:1] == [LOGITS])

    @property
    def is_gradient(self) -> bool:
        """Tell whether the tap is a gradient by the model's input."""
        return self.path in GRADIENTS

    def get_config(self) -> dict:
        """Give the arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> Tap:
        """Make a tap from its arguments."""
        return cls(**config)


def as_taps(taps: str | Tap | Iterable[str | Tap]) -> tuple[Tap, ...]:
    """Make a tuple of taps out of a path, a tap, or several of them."""
    if isinstance(taps, (str, Tap)):
        taps = (taps,)
    try:
        return tuple(tap if isinstance(tap, Tap) else Tap(tap) for tap in taps)
    except TypeError:
        raise TypeError(
            f"A tap is a layer path, a kd.Tap or a tuple of these; got {taps!r}."
        ) from None


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """List the direct sublayers of any layer or model."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def layer_paths(model: keras.Layer, prefix: str = "") -> Iterator[str]:
    """List the paths of all layers below a model."""
    for layer in sublayers(model):
        yield prefix + layer.name
        yield from layer_paths(layer, f"{prefix}{layer.name}/")


def find_layer(model: keras.Layer, path: str) -> keras.Layer:
    """Find a layer by its path.

    Raises:
        ValueError: there is no such layer; the message has the nearest paths.
    """
    layer = model
    for part in path.split("/"):
        owner, layer = layer, _child(layer, part)
        if layer is None:
            folded = isinstance(owner, keras.Layer) and _child(owner, part + FOLDED)
            raise ValueError(_folded(path) if folded else _missing(model, path))
    return layer


def _missing(model, path: str) -> str:
    known = list(layer_paths(model))
    near = difflib.get_close_matches(path, known, n=5, cutoff=0.4)
    return (
        f"The model '{model.name}' has no layer '{path}'. Near it: "
        f"{', '.join(near or known[-5:]) or 'none'}. Give the path of one of its "
        "layers, from the model down, joined by '/'."
    )


def _folded(path: str) -> str:
    return (
        f"The tap of '{path}' is of a value between a layer and the batch normalisation "
        "behind it, and kd.freeze folded the two into one. Tap what the normalisation "
        f"gives, or leave both as they are: kd.freeze(..., keep='{path}')."
    )


def _layers_of(model, taps) -> dict[Tap, keras.Layer]:
    """Find the tapped layers, whose values must be there."""
    layers = {tap: find_layer(model, tap.path) for tap in taps if not tap.is_logits}
    for tap, layer in layers.items():
        if isinstance(layer, FoldedNormalization) and tap.side == "input":
            raise ValueError(_folded(tap.path))
    return layers


def _child(owner, part: str):
    if isinstance(owner, (list, tuple)):
        in_range = part.isdecimal() and int(part) < len(owner)
        return owner[int(part)] if in_range else None
    for layer in sublayers(owner):
        if layer.name == part:
            return layer
    child = getattr(owner, part, None) if part.isidentifier() else None
    return child if isinstance(child, (keras.Layer, list, tuple)) else None


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
    """
    taps = tuple(taps)
    if any(tap.is_gradient or tap.is_logits for tap in taps):
        return forward(model, inputs, taps, training=training, scores=scores)[1]
    layers = _layers_of(model, taps)
    enough = functools.partial(_has_all, layers)
    listened = list(layers.values())
    if training:
        # Masks are put on a layer's output behind its call: go on to the next one's.
        leaves = _leaves(model)
        enough = functools.partial(_has_all_and_goes_on, layers, leaves)
        listened += leaves
    with record(listened, enough) as calls:
        model(inputs, training=training)
    return {tap: _called(model, calls[id(layer)], tap) for tap, layer in layers.items()}


def layers_up_to(model: keras.Layer, inputs, tap: Tap) -> list[keras.Layer]:
    """List the layers without sublayers that run until a tap has its value.

    Args:
        model: any model.
        inputs: specs of what it takes.
        tap: of a layer.

    Raises:
        ValueError: there is no such layer, or it is not called.
    """
    layers, found, leaves = _layers_of(model, [tap]), [], _leaves(model)

    def run(inputs):
        listened = [*leaves, *layers.values()]
        with record(listened, functools.partial(_has_all, layers)) as calls:
            model(inputs, training=False)
        # A call that was not over is that of the layer whose input is tapped.
        found.extend(x for x in leaves if any(len(call) > 1 for call in calls[id(x)]))
        return _called(model, calls[id(layers[tap])], tap)

    trace(run, inputs)
    return found


def _leaves(model) -> list[keras.Layer]:
    return [x for x in model._flatten_layers(include_self=False) if not sublayers(x)]


def _has_all(layers: dict, calls) -> bool:
    return all(_is_noted(calls[id(layer)], tap) for tap, layer in layers.items())


def _has_all_and_goes_on(layers: dict, leaves, calls) -> bool:
    begun = (len(call) == 1 for x in leaves for call in calls[id(x)])
    return _has_all(layers, calls) and any(begun)


def _mirrored(images):
    """Swap left and right of images `(B, H, W, C)`."""
    return keras.ops.flip(images, axis=2)


def _run(model, inputs, taps, training) -> tuple[object, dict[Tap, object]]:
    layers = _layers_of(model, taps)
    with record(layers.values()) as calls:
        outputs = model(inputs, training=training)
    tapped = {}
    for tap in taps:
        if tap.is_logits:
            tapped[tap] = _output(model, outputs, tap)
        else:
            tapped[tap] = _called(model, calls[id(layers[tap])], tap)
    return outputs, tapped


def mask_of(tensor):
    """Give the mask `(B, L)` that Keras layers passed along with a tensor, or None."""
    # Nothing public reads it: on JAX it is no attribute of the tensor.
    from keras.src.backend import get_keras_mask

    return get_keras_mask(tensor)


def outline(model: keras.Layer, inputs) -> tuple[object, keras.Layer | None]:
    """Give the specs of a model's outputs, and the layer, however deep, that made it.

    Args:
        model: any model.
        inputs: specs of its inputs.

    Returns:
        Specs, and the last layer; None if the model's own code makes the output, or if
        there are several outputs.
    """
    nested = list(model._flatten_layers(include_self=False))
    leaves = [layer for layer in nested if not sublayers(layer)]
    last = []

    def run(inputs):
        with record(leaves) as calls:
            outputs = model(inputs, training=False)
        made = (x for x in leaves if any(y is outputs for _, y in calls[id(x)]))
        last.append(next(made, None))
        return outputs

    return trace(run, inputs), last[-1]


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
    """
    norms, sums = (
        [layer for layer in model._flatten_layers() if isinstance(layer, kind)]
        for kind in (_NORMALIZATIONS, keras.layers.Add)
    )
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


def _is_noted(calls, tap) -> bool:
    return len(calls) > tap.call and len(calls[tap.call]) > (tap.side == "output")


def _called(model, calls, tap):
    if tap.call >= len(calls):
        raise ValueError(
            f"The layer '{tap.path}' of '{model.name}' is called {len(calls)} times in "
            f"a forward pass, but the tap asks for call {tap.call} (counted from 0). "
            "Tap a layer that is used, at a call that happens."
        )
    tensor = calls[tap.call][tap.side == "output"]
    return keras.tree.flatten(tensor)[0]


def _output(model, outputs, tap):
    part = tap.path.partition("/")[2]
    if not part:
        if isinstance(outputs, (dict, list, tuple)):
            raise ValueError(
                f"The model '{model.name}' has several outputs, so the tap 'logits' "
                f"does not say which: use one of {_output_names(model, outputs)}."
            )
        return outputs
    if isinstance(outputs, dict) and part in outputs:
        return outputs[part]
    names = [name.partition("/")[2] for name in _output_names(model, outputs)]
    if isinstance(outputs, (list, tuple)):
        if part.isdecimal() and int(part) < len(outputs):
            return outputs[int(part)]
        if part in names:
            return outputs[names.index(part)]
    raise ValueError(
        f"The model '{model.name}' has no output '{part}'; "
        f"its outputs are {names or 'one tensor, the tap logits'}."
    )


def _output_names(model, outputs) -> list[str]:
    if isinstance(outputs, dict):
        return [f"{LOGITS}/{name}" for name in outputs]
    if isinstance(outputs, (list, tuple)):
        numbers = [str(i) for i in range(len(outputs))]
        names = getattr(model, "output_names", None) or numbers
        return [f"{LOGITS}/{name}" for name in names]
    return []
