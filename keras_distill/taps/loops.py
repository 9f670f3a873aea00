"""Taps inside of layers that run another layer step by step."""

import weakref

import keras
from keras import layers

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps.recording import RecordedCall

_LOOPS = layers.TimeDistributed, layers.RNN, layers.Bidirectional
_without: weakref.WeakSet = weakref.WeakSet()


class AllSteps(RecordedCall):
    """The calls of a layer for the steps of one sequence, as one call.

    `frame` is the call of the layer that runs the steps, whose mask is theirs.
    """

    def __init__(self, calls: list[RecordedCall], frame: RecordedCall):
        super().__init__(None, calls[0].begin)
        self.calls, self.frame, self.end = calls, frame, calls[-1].end
        self.is_confined = any(call.is_confined for call in calls)
        self.append(None)


def loops_around(model: keras.Layer, tapped) -> list[keras.Layer]:
    """Return the layers that run one with a tapped layer step by step, innermost first."""
    if model in _without:
        return []
    loops = [x for x in flatten_layers(model) if isinstance(x, _LOOPS)]
    if not loops and model.built:
        _without.add(model)
    below = [flatten_layers(loop, include_self=False) for loop in loops]
    tapped = {id(layer) for layer in tapped}
    found = [
        (len(inside), index)
        for index, inside in enumerate(below)
        if any(id(layer) in tapped for layer in inside)
    ]
    return [loops[index] for _, index in sorted(found)]


def with_all_steps(model, tap, layer, calls: list, notes: dict, loops: list) -> list:
    """Return the calls of a tapped layer, those for the steps of a sequence as one.

    Raises:
        ValueError: the layer is inside of one that does not give all steps.
    """
    for loop in loops:
        if not calls:
            # A recurrent layer may compute in place of its cell.
            _check(model, tap, layer, loop)
        for frame in notes[id(loop)]:
            inside = [call for call in calls if call.is_inside(frame)]
            if inside:
                _check(model, tap, layer, loop)
                calls = [call for call in calls if not call.is_inside(frame)]
                calls += _joined(model, tap, loop, frame, inside)
                calls.sort(key=lambda call: call.begin)
    for call in calls:
        if call.is_confined:
            raise ValueError(
                f"The tap '{tap}' of '{model.name}' is inside of a loop, a branch or a "
                "keras.remat, whose tensors cannot be used outside of it. Tap a layer "
                "around it, or one behind it."
            )
    return calls


def _joined(model, tap, loop, frame, inside) -> list:
    """Return one call for each of the calls that a step makes of a layer."""
    if not isinstance(loop, layers.TimeDistributed):
        return inside
    steps = keras.tree.flatten(frame[0])[0].shape[1]
    if steps is None or len(inside) % steps:
        raise ValueError(
            f"The tap '{tap}' of '{model.name}' is inside of '{loop.name}', a "
            "TimeDistributed over an unknown number of steps, of which no step is known "
            f"outside of it. Fix the number of steps in keras.Input, or tap '{loop.name}' "
            "itself."
        )
    each = len(inside) // steps
    return [AllSteps(inside[index::each], frame) for index in range(each)]


def _check(model, tap, layer, loop) -> None:
    """Check that a loop runs a tapped layer on all steps, in their order."""
    if isinstance(loop, layers.RNN):
        raise ValueError(
            f"The tap '{tap}' of '{model.name}' is inside of the recurrent layer "
            f"'{loop.name}' ({type(loop).__name__}), which runs it once per step. Tap "
            f"'{loop.name}' itself, with return_sequences=True for all steps."
        )
    backward = isinstance(loop, layers.Bidirectional) and layer is loop.backward_layer
    if backward and layer.return_sequences:
        raise ValueError(
            f"The tap '{tap}' of '{model.name}' is of the backward layer of the "
            f"Bidirectional '{loop.name}', whose steps are in reverse order. Tap "
            f"'{loop.name}' itself, with merge_mode='concat' for both directions."
        )
