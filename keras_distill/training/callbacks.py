"""What a distiller watches by itself while it trains."""

from __future__ import annotations

import keras


class StopAtNotFinite(keras.callbacks.Callback):
    """Stop at the end of an epoch in which a part of the loss was not finite.

    It stands before the user's callbacks, so that the last checkpoint stays good. It has
    nothing to do with a batch, at which Keras would call it by another thread.
    """

    async_safe = True

    def on_epoch_end(self, epoch, logs=None):
        """Look at the means of the epoch."""
        self.model.are_finite(logs or {}, f"epoch {epoch}")


class SameStatistics(keras.callbacks.Callback):
    """Make moving means of all replicas the same before they are judged or saved."""

    async_safe = True

    def on_test_begin(self, logs=None):
        """Before the validation of an epoch."""
        self.model.share_statistics()

    def on_epoch_end(self, epoch, logs=None):
        """Before the user's callbacks see the model."""
        self.model.share_statistics()


def before(own: list, callbacks):
    """Put own callbacks before the user's."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        kinds = tuple(type(callback) for callback in own)
        users = [x for x in callbacks.callbacks if not isinstance(x, kinds)]
        callbacks.callbacks[:] = [*own, *users]
        for callback in own:
            callback.set_model(callbacks.model)
        return callbacks
    return [*own, *keras.tree.flatten(callbacks or [])]
