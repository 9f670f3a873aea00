"""The layers of a model that are worth a tap: maps by resolution, blocks, vectors."""

import dataclasses
from collections import Counter

import keras
from keras import layers

from keras_distill._backend.keras_layers import flatten_layers, sublayers
from keras_distill.taps import tracing
from keras_distill.taps.first_calls import (
    LOOPS,
    FirstCall,
    Shape,
    first_calls,
    is_attention,
)
from keras_distill.taps.layouts import channels_first_error, channels_first_layers

_MERGES = layers.Add, layers.Average, layers.Concatenate
_IDLE = layers.InputLayer, layers.ZeroPadding2D, layers.Dropout, layers.Flatten


@dataclasses.dataclass(frozen=True)
class Features:
    """The layers of a model that are worth a tap, each as a path and a shape.

    Args:
        maps: by height and width, relative to the image's; in the order of their calls.
        blocks: of a sequence model, one list for each stack of them.
        vector: the last vector that is no output, if there is one.
        size: of the image, or None.
    """

    maps: dict
    blocks: list
    vector: list
    size: tuple | None

    def grids(self) -> dict:
        """Return the blocks over patches of the image as `maps`."""
        found = {}
        for stack in self.blocks:
            height, width = self._grid(stack[-1][1][1])
            if height:
                share = height / self.size[0], width / self.size[1]
                found.setdefault(share, []).extend(stack)
        return found

    def _grid(self, tokens: int | None) -> tuple[int, int]:
        """Return height and width of the map whose patches are tokens, or zeros.

        There may be a few tokens before those of patches, such as that of the class.
        """
        if not tokens or self.size is None:
            return 0, 0
        for patches in range(tokens, max(tokens - 6, 0), -1):
            height = round((patches * self.size[0] / self.size[1]) ** 0.5)
            width = patches // max(height, 1)
            if height * width == patches and _is_near(
                height / width, self.size[0] / self.size[1], 1.01
            ):
                return height, width
        return 0, 0


def features_of(model: keras.Model, inputs) -> Features:
    """Return the layers of a model that are worth a tap.

    Args:
        model: any model.
        inputs: a batch, or specs; None for those that the model declares.

    Raises:
        ValueError: it declares none, or computes with channels first.
    """
    inputs = tracing.input_of(model) if inputs is None else inputs
    if inputs is None:
        raise ValueError(
            f"The model '{model.name}' does not declare its inputs; pass one batch of "
            "them as student_input or teacher_input."
        )
    calls, size = first_calls(model, inputs)
    _check_channels_last(model, calls)
    # Without an image, tensors of rank 4 are heads of attention.
    calls = [x for x in calls if _is_worth_a_tap(x) and (size or len(x.shape) < 4)]
    once = _once(model, calls)
    maps: dict = {}
    for call in once:
        if len(call.shape) == 4 and None not in call.shape[1:-1]:
            maps.setdefault(_share(call.shape, size), []).append(call)
    vectors = [call for call in once if len(call.shape) == 2]
    sequence = [call for call in calls if len(call.shape) == 3]
    stacks = _stacks(model, sequence, [x for x in once if len(x.shape) == 3])
    found = Features(
        {share: _named(_until_merged(stage)) for share, stage in maps.items()},
        [_named(_until_merged(stack)) for stack in stacks],
        _named(_hidden(vectors)[-1:]),
        size,
    )
    # The one map of a vision transformer is that of its patches, before any block.
    is_transformer = len(maps) == 1 and found.grids()
    return dataclasses.replace(found, maps={}) if is_transformer else found


def _check_channels_last(model, calls: list[FirstCall]) -> None:
    """Check that no layer returns a map or a sequence with channels first."""
    first = {id(layer) for layer in channels_first_layers(model)}
    for call in calls:
        if id(call.layer) in first and len(call.shape) > 2:
            raise ValueError(channels_first_error(model, f"the layer '{call.path}'"))


def _hidden(vectors: list[FirstCall]) -> list[FirstCall]:
    """Return the vectors that are no outputs, all but the last where none is known."""
    hidden = [call for call in vectors if not call.is_output]
    return hidden if len(hidden) < len(vectors) else vectors[:-1]


def _named(calls: list[FirstCall]) -> list[tuple[str, Shape]]:
    return [(call.path, call.shown) for call in calls]


def _stacks(
    model, calls: list[FirstCall], once: list[FirstCall]
) -> list[list[FirstCall]]:
    """Return the stacks of blocks of a sequence model.

    Without blocks, the ends of residual branches are one stack, else all layers.
    """
    composed = [
        call
        for call in calls
        if sublayers(call.layer)
        and not isinstance(call.layer, LOOPS)
        and not is_attention(call.layer)
    ]
    blocks = [x for x in composed if any(map(is_attention, sublayers(x.layer)))]
    # A model that holds the layers of all blocks is none.
    blocks = [call for call in blocks if not _is_most_of(model, call.layer)]
    if not blocks:
        several = Counter(map(_stack_of, composed))
        blocks = [call for call in composed if several[_stack_of(call)] > 1]
    inner = {id(x) for c in blocks for x in flatten_layers(c.layer, include_self=False)}
    stacks: dict = {}
    for call in blocks:
        if id(call.layer) not in inner:
            stacks.setdefault(_stack_of(call), []).append(call)
    merges = [call for call in once if isinstance(call.layer, _MERGES)]
    return list(stacks.values()) or [stack for stack in [merges or once] if stack]


def _stack_of(call: FirstCall) -> tuple:
    """Return what the blocks of one stack have in common: list or parent, and class."""
    parent, _, last = call.path.rpartition("/")
    return parent if last.isdecimal() else parent.rstrip("/"), type(call.layer)


def _is_most_of(model: keras.Model, layer: keras.Layer) -> bool:
    """Whether a layer is a model with most of the layers of another."""
    few = 2 * len(flatten_layers(layer)) <= len(flatten_layers(model))
    return isinstance(layer, keras.Model) and not few


def _until_merged(calls: list[FirstCall]) -> list[FirstCall]:
    """Cut off what follows the last merge of a stage, where the next stage begins."""
    places = [i for i, call in enumerate(calls) if isinstance(call.layer, _MERGES)]
    if not places:
        return calls
    end, following = places[-1], calls[places[-1] + 1 : places[-1] + 2]
    for call in following:
        if isinstance(call.layer, (layers.ReLU, layers.Activation)):
            end += call.inputs is calls[end].outputs
    return calls[: end + 1]


def _once(model: keras.Model, calls: list[FirstCall]) -> list[FirstCall]:
    """Keep for each tensor the call with the shortest path, but not of a whole model."""
    same: dict = {}
    for call in calls:
        # Moved to the end: a nested model returns the output of its last layer.
        same[id(call.outputs)] = [*same.pop(id(call.outputs), []), call]

    def length(call):
        return _is_most_of(model, call.layer), call.path.count("/")

    return [min(several, key=length) for several in same.values()]


def _is_worth_a_tap(call: FirstCall) -> bool:
    """Whether a layer computes features, not input, padding or shapes alone."""
    return not isinstance(call.layer, _IDLE) and 2 <= len(call.shape) <= 4


def _share(shape: Shape, size) -> tuple:
    """Return height and width relative to the image's."""
    pairs = zip(shape[1:-1], size, strict=True)
    return tuple(round(own / whole, 4) for own, whole in pairs)


def _is_near(a: float, b: float, factor: float) -> bool:
    return max(a, b) <= factor * min(a, b)


def nearest_shares(student, teacher) -> list[tuple]:
    """Pair resolutions that are each the nearest of the other, as 15 and 16 of 32 are.

    Args:
        student, teacher: resolutions, each of height and width relative to an image.
    """

    def distance(a, b) -> float:
        return max(max(x, y) / min(x, y) for x, y in zip(a, b, strict=True))

    pairs = []
    for own in student:
        other = min(teacher, key=lambda x: distance(own, x), default=None)
        if other is None or distance(own, other) > 2**0.5:
            continue
        if min(student, key=lambda x: distance(x, other)) == own:
            pairs.append((own, other))
    return pairs
