"""States of Keras's callbacks, which they keep in attributes and reset as `fit` begins."""

import warnings

import keras
import numpy as np

_ATTRIBUTES = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: (
        "best",
        "_last_batch_seen",
        "_batches_seen_since_last_saving",
    ),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


def callback_states(callbacks: list) -> dict[str, np.ndarray]:
    """Return what Keras's callbacks have seen of the training so far, arrays by name.

    Stands in for a public state of `keras.callbacks.Callback`, for which no public issue
    asks.
    """
    return {
        f"{name} {part}": x
        for name, callback in _named(callbacks).items()
        for part, x in _state(callback).items()
    }


def set_callback_states(callbacks: list, states: dict[str, np.ndarray]) -> None:
    """Set what `callback_states` returned; the callbacks may come in another order."""
    named = _named(callbacks)
    saved = {name.split(" ")[0] for name in states}
    if lost := saved - set(named):
        warnings.warn(
            f"The backup has the states of {', '.join(sorted(lost))}, and no such callback "
            "was passed: the run continues without it.",
            stacklevel=2,
        )
    for name in saved & set(named):
        parts = {x.partition(" ")[2]: x for x in states if x.startswith(f"{name} ")}
        _set_state(named[name], {part: states[x] for part, x in parts.items()})


def _named(callbacks: list) -> dict:
    """Return callbacks by their kind, what they watch, and a count of equal ones."""
    named = {}
    for callback in callbacks:
        parts = type(callback).__name__, getattr(callback, "monitor", "")
        name = ":".join(parts).replace(" ", "_")
        same = sum(x.startswith(f"{name}:") for x in named)
        named[f"{name}:{same}"] = callback
    return named


def _state(callback) -> dict[str, np.ndarray]:
    names = [name for kind in _kinds(callback) for name in _ATTRIBUTES[kind]]
    values = {name: getattr(callback, name, None) for name in names}
    state = {
        name: np.asarray(keras.ops.convert_to_numpy(value))
        for name, value in values.items()
        if value is not None
    }
    best = getattr(callback, "best_weights", None)
    if isinstance(callback, keras.callbacks.EarlyStopping) and best is not None:
        state |= {f"best_weights {i:05d}": np.array(x) for i, x in enumerate(best)}
    return state


def _set_state(callback, state: dict[str, np.ndarray]) -> None:
    weights = [state[name] for name in sorted(state) if " " in name]
    if weights:
        callback.best_weights = weights
    for name in state:
        if " " not in name:
            setattr(callback, name, state[name].item())


def has_state(callback) -> bool:
    """Whether a callback is one of Keras's that keep a state."""
    return bool(_kinds(callback))


def _kinds(callback) -> list:
    return [kind for kind in _ATTRIBUTES if isinstance(callback, kind)]
