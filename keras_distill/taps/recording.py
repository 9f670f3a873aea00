"""What layers are given and give, noted while a model runs.

For the length of one forward pass the `call` of each layer that is listened to is
wrapped on the instance, so nested, subclassed and shared layers are reached alike,
eagerly and in a trace, and nothing runs twice.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable

import keras

_recording = threading.local()
_wrapping = threading.Lock()


class _Enough(BaseException):
    """Ends a pass from within; no `Exception`, which Keras and models may catch."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes


class _Notes(dict):
    """What one recording has so far, and what tells that no more is needed."""

    def __init__(self, layers, enough):
        super().__init__({key: [] for key in layers})
        self.enough = enough

    def check(self):
        if self.enough is not None and self.enough(self):
            raise _Enough(self)


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
        key = id(self.layer)
        listening = [x for x in getattr(_recording, "stack", ()) if key in x]
        given = args[0] if args else next(iter(kwargs.values()))
        calls = [[given] for _ in listening]
        for notes, call in zip(listening, calls, strict=True):
            notes[key].append(call)
        for notes in listening:
            notes.check()
        result = self.call(*args, **kwargs)
        for call in calls:
            call.append(result)
        for notes in listening:
            notes.check()
        return result

    def install(self):
        self.layer.__dict__["call"] = self

    def remove(self):
        if self.replaced:
            self.layer.__dict__["call"] = self.call
        else:
            del self.layer.__dict__["call"]


@contextlib.contextmanager
def record(layers: Iterable[keras.Layer], enough: Callable | None = None):
    """Note what layers are given and give, while models run inside the `with`.

    A subclassed model that is not built yet is run twice by Keras at its first call,
    so build it before.

    Args:
        layers: to listen to.
        enough: from the notes so far to whether they suffice; the `with` is then left
            at once, from within the model. Default: it runs to its end.

    Yields:
        A dict from the layer's `id` to a list of `[inputs, outputs]`, one a call; of a
        call that is not over yet `[inputs]`.
    """
    layers = {id(layer): layer for layer in layers}
    notes = _Notes(layers, enough)
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
    except _Enough as signal:
        if signal.notes is not notes:
            raise
    finally:
        _recording.stack.pop()
        with _wrapping:
            for layer in layers.values():
                recorded = layer.__dict__["call"]
                recorded.users -= 1
                if not recorded.users:
                    recorded.remove()
