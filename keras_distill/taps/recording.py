"""The inputs and outputs of layers, recorded while a model runs.

For the length of one forward pass the `call` of each recorded layer is wrapped on the
instance, so nested, subclassed and shared layers are reached alike, eagerly and in a
trace, and nothing runs twice.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable

import keras

from keras_distill._backend.replaced_methods import replaced

_recording = threading.local()


class _Enough(BaseException):
    """Ends a pass from within; not an `Exception`, which Keras and models may catch."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes


class RecordedCall(list):
    """`[inputs, outputs]` of one call of a layer; `[inputs]` while it runs.

    `begin` and `end` are positions among those of all recorded calls.
    """

    def __init__(self, inputs, begin: int):
        super().__init__([inputs])
        self.begin, self.end = begin, None

    def is_inside(self, other: "RecordedCall") -> bool:
        """Whether the call was made while another ran."""
        return other.begin < self.begin and (other.end is None or self.end < other.end)


class _Notes(dict):
    """What one recording has so far, and whether that is enough."""

    def __init__(self, layers, enough):
        super().__init__({key: [] for key in layers})
        self.enough, self.positions = enough, itertools.count()

    def check(self):
        if self.enough is not None and self.enough(self):
            raise _Enough(self)


class _RecordingCall:
    """Stands in for a layer's `call`; notes inputs and outputs for every recording.

    Each thread records into its own notes.
    """

    def __init__(self, call, layer):
        self.call, self.key = call, id(layer)

    def __call__(self, *args, **kwargs):
        listening = [x for x in getattr(_recording, "stack", ()) if self.key in x]
        inputs = args[0] if args else next(iter(kwargs.values()))
        calls = [RecordedCall(inputs, next(notes.positions)) for notes in listening]
        for notes, call in zip(listening, calls, strict=True):
            notes[self.key].append(call)
        for notes in listening:
            notes.check()
        outputs = self.call(*args, **kwargs)
        for notes, call in zip(listening, calls, strict=True):
            call.append(outputs)
            call.end = next(notes.positions)
        for notes in listening:
            notes.check()
        return outputs


@contextlib.contextmanager
def record(layers: Iterable[keras.Layer], enough: Callable | None = None):
    """Record inputs and outputs of layers while models run inside the `with`.

    Keras runs a subclassed model that is not built yet twice at its first call, so build
    it before.

    Args:
        layers: to record.
        enough: from the notes so far to whether they suffice; the `with` is then left
            at once, from within the model. Default: it runs to its end.

    Yields:
        A dict from the layer's `id` to a list of `RecordedCall`, in the order of running.
    """
    layers = {id(layer): layer for layer in layers}
    notes = _Notes(layers, enough)
    if not hasattr(_recording, "stack"):
        _recording.stack = []
    with replaced(layers.values(), "call", _RecordingCall):
        _recording.stack.append(notes)
        try:
            yield notes
        except _Enough as signal:
            if signal.notes is not notes:
                raise
        finally:
            _recording.stack.pop()
