"""The tensor of a tap, from what a pass recorded."""

import keras
from keras import ops

from keras_distill._backend.keras_layers import mask_of, with_mask
from keras_distill.taps.tap import LOGITS


def is_recorded(calls, tap) -> bool:
    """Whether the calls of a layer include the tensor of a tap."""
    return len(calls) > tap.call and len(calls[tap.call]) > (tap.side == "output")


def without_gradient(tensor):
    """Return a tensor without its gradient, but with its mask."""
    mask = mask_of(tensor)
    stopped = ops.stop_gradient(tensor)
    return stopped if mask is None else with_mask(stopped, mask)


def layer_tensor(model, calls, tap):
    """Return the tensor of a tap from all calls of its layer, in the author's order."""
    if tap.call >= len(calls):
        raise ValueError(
            f"The layer '{tap.path}' of '{model.name}' is called {len(calls)} times in "
            f"a forward pass, but the tap names call {tap.call} (counted from 0). "
            "Tap a layer that is used, at a call that happens."
        )
    tensor = calls[tap.call][tap.side == "output"]
    return keras.tree.flatten(tensor)[0]


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
