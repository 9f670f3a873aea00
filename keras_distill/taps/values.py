"""The tensor of a tap, from what a pass recorded."""

from typing import NamedTuple

import keras
from keras import ops

from keras_distill._backend.keras_layers import mask_of, with_mask
from keras_distill.taps import call_order, loops
from keras_distill.taps.layer_paths import layers_of
from keras_distill.taps.recording import FUSED_ATTENTION
from keras_distill.taps.scores import log_scores, softmaxes, steps_first
from keras_distill.taps.tap import LOGITS


class Wanted(NamedTuple):
    """What a pass must record for some taps.

    Args:
        model: that runs.
        layers: of each tap.
        reordered: operations whose calls come in another order than the author's.
        loops: layers that run a tapped one step by step.
    """

    model: keras.Layer
    layers: dict
    reordered: list
    loops: list

    @classmethod
    def of(cls, model, taps) -> "Wanted":
        """Return what must be recorded for taps of a model."""
        layers = layers_of(model, taps)
        around = loops.loops_around(model, layers.values())
        return cls(model, layers, call_order.reordered_in(model), around)

    @property
    def scored(self) -> list:
        """The layers whose attention scores are tapped."""
        return [x for tap, x in self.layers.items() if tap.is_scores]

    def recorded(self) -> list:
        """Return the layers to record."""
        inner = [softmax for layer in self.scored for softmax in softmaxes(layer)]
        others = call_order.listened(self.reordered)
        return [*self.layers.values(), *others, *self.loops, *inner]

    def runs_in_order(self) -> bool:
        """Whether a tensor is known once its layer was called as often as the tap says."""
        return not self.reordered and not self.loops

    def tensors(self, notes) -> dict:
        """Return the tensor of each tap of a layer."""
        return {tap: self._tensor(tap, notes) for tap in self.layers}

    def _tensor(self, tap, notes):
        layer = self.layers[tap]
        calls = call_order.in_order(notes[id(layer)], notes, self.reordered)
        calls = loops.with_all_steps(self.model, tap, layer, calls, notes, self.loops)
        check_called(self.model, calls, tap)
        return self._value(calls[tap.call], tap, notes)

    def _value(self, call, tap, notes):
        if isinstance(call, loops.AllSteps):
            steps = [self._value(step, tap, notes) for step in call.calls]
            return _with_mask_of(call.frame[1], ops.stack(steps, axis=1))
        if tap.is_scores:
            return self._scores(call, tap, notes)
        return keras.tree.flatten(call[tap.side == "output"])[0]

    def _scores(self, call, tap, notes):
        layer = self.layers[tap]
        keys = [FUSED_ATTENTION, *(id(softmax) for softmax in softmaxes(layer))]
        inside = [x for key in keys for x in notes[key] if x.is_inside(call)]
        if len(inside) != 1:
            raise ValueError(_no_scores(self.model, tap, layer, len(inside)))
        scores = steps_first(inside[0][1], layer)
        scores = log_scores(scores) if tap.side == "log_scores" else scores
        scores = _with_mask_of(call[1], scores)
        if call.masks_keys and mask_of(scores) is None:
            # What leaves masked keys out depends on the mask of the queries.
            return with_mask(scores, ops.ones(ops.shape(scores)[:2], "bool"))
        return scores


def _with_mask_of(outputs, tensor):
    """Return a tensor with the mask of the outputs of a layer, if they have one."""
    mask = mask_of(keras.tree.flatten(outputs)[0])
    return tensor if mask is None else with_mask(tensor, mask)


def is_recorded(calls, tap) -> bool:
    """Whether the calls of a layer include the tensor of a tap."""
    return len(calls) > tap.call and len(calls[tap.call]) > (tap.side != "input")


def without_gradient(tensor):
    """Return a tensor without its gradient, but with its mask."""
    mask = mask_of(tensor)
    stopped = ops.stop_gradient(tensor)
    return stopped if mask is None else with_mask(stopped, mask)


def check_called(model, calls, tap) -> None:
    """Check that a layer was called as often as a tap says."""
    if tap.call >= len(calls):
        raise ValueError(
            f"The layer '{tap.path}' of '{model.name}' is called {len(calls)} times in "
            f"a forward pass, but the tap names call {tap.call} (counted from 0). "
            "Tap a layer that is used, at a call that happens."
        )


def output_tensor(model, outputs, tap):
    """Return the one of a model's outputs that a tap names."""
    part = tap.output_name
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


def _no_scores(model, tap, layer, count: int) -> str:
    if count:
        return (
            f"The tap '{tap}' of '{model.name}' is of a layer that attends {count} times "
            "in a call, so it does not say which scores are meant. Tap one of the "
            "attention layers inside of it."
        )
    return (
        f"The tap '{tap}' of '{model.name}' is of the scores of a "
        f"{type(layer).__name__}, which computes none that can be recorded: it calls "
        "neither a keras.layers.Softmax nor keras.ops.dot_product_attention. Tap a "
        "keras.layers.MultiHeadAttention, or the output of the layer."
    )
