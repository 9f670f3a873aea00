"""What a distiller watches by itself while it trains."""

from __future__ import annotations

import math

import keras


class StopAtNotFinite(keras.callbacks.Callback):
    """Stop as soon as a part of the loss is not finite, before anything is saved.

    It stands before the user's callbacks, so that the last checkpoint stays good, and
    reads the logs that the step computes anyway.

    Args:
        parts: names of the parts in the logs.

    Raises:
        ValueError: names the parts and the step.
    """

    async_safe = True

    def __init__(self, parts: list[str]):
        super().__init__()
        self.parts = parts

    def on_train_batch_end(self, batch, logs=None):
        """Look at the means so far: one that is not finite stays so."""
        logs = logs or {}
        bad = [name for name in self.parts if not math.isfinite(logs.get(name, 0.0))]
        if bad:
            raise ValueError(
                f"Training stopped at batch {batch}: {', '.join(bad)} "
                f"{'is' if len(bad) == 1 else 'are'} not finite. The logits or features "
                "behind it are not, or its weight is too large: lower the learning rate "
                "or the weight, clip gradients, or look at the data. Checkpoints from "
                "before are as they were."
            )


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
        callbacks.callbacks[:0] = own
        for callback in own:
            callback.set_model(callbacks.model)
        return callbacks
    return [*own, *keras.tree.flatten(callbacks or [])]
