"""States of Keras's callbacks, which they keep in attributes and reset as `fit` begins."""

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


def callback_state(callback) -> dict[str, np.ndarray]:
    """Return what a callback has seen of the training so far, arrays by name.

    Stands in for a public state of `keras.callbacks.Callback`, for which no public issue
    asks. Empty for a callback that is not one of Keras's with a state.
    """
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


def set_callback_state(callback, state: dict[str, np.ndarray]) -> None:
    """Set what `callback_state` returned."""
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
