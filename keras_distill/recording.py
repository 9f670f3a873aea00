"""What layers are given and give, noted while a model runs.

For the length of one forward pass the `call` of each layer that is listened to is
wrapped on the instance, so nested, subclassed and shared layers are reached alike,
eagerly and in a trace, and nothing runs twice.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable

import keras

_recording = threading.local()
_wrapping = threading.Lock()


class _RecordedCall:
    """Stands in for a layer's `call`; notes arguments and result for whoever records.

    Replicas of one step run in threads that may meet in one layer, so each thread
    records into its own notes, and the last to leave puts the layer right.
    """

    def __init__(self, layer):
        self.layer = layer
        self.call = layer.call
        self.replaced = "call" in layer.__dict__
        self.users = 0

    def __call__(self, *args, **kwargs):
        result = self.call(*args, **kwargs)
        for notes in getattr(_recording, "stack", ()):
            if id(self.layer) in notes:
                given = args[0] if args else next(iter(kwargs.values()))
                notes[id(self.layer)].append((given, result))
        return result

    def install(self):
        self.layer.__dict__["call"] = self

    def remove(self):
        if self.replaced:
            self.layer.__dict__["call"] = self.call
        else:
            del self.layer.__dict__["call"]


@contextlib.contextmanager
def record(layers: Iterable[keras.Layer]):
    """Note what layers are given and give, while models run inside the `with`.

    A subclassed model that is not built yet is run twice by Keras at its first call,
    so build it before.

    Args:
        layers: to listen to.

    Yields:
        A dict from the layer's `id` to a list of `(inputs, outputs)`, one a call.
    """
    layers = {id(layer): layer for layer in layers}
    notes = {key: [] for key in layers}
    if not hasattr(_recording, "stack"):
        _recording.stack = []
    with _wrapping:
        for layer in layers.values():
            if not isinstance(layer.__dict__.get("call"), _RecordedCall):
                _RecordedCall(layer).install()
            layer.__dict__["call"].users += 1
    _recording.stack.append(notes)
    try:
        yield notes
    finally:
        _recording.stack.remove(notes)
        with _wrapping:
            for layer in layers.values():
                recorded = layer.__dict__["call"]
                recorded.users -= 1
                if not recorded.users:
                    recorded.remove()
