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

from keras_distill._backend.fused_attention import replaced_attention
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill._backend.rematerialization import rematerialized, takes_keywords
from keras_distill._backend.replaced_methods import replaced
from keras_distill._backend.traces import current_trace
from keras_distill.taps.scores import attention_scores

# The key of the calls of fused attention among the notes.
FUSED_ATTENTION = "fused_attention"
# The arguments by which Keras passes the masks of an attention layer's keys.
_KEY_MASKS = "value_mask", "key_mask"

_recording = threading.local()


class _Enough(BaseException):
    """Ends a pass from within; not an `Exception`, which Keras and models may catch."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes


class RecordedCall(list):
    """`[inputs, outputs]` of one call of a layer; `[inputs]` while it runs.

    `begin` and `end` are positions among those of all recorded calls. `is_confined` says
    that the tensors belong to a trace inside that of the recording, as in a loop;
    `masks_keys`, that a layer of attention was given a mask of its keys.
    """

    def __init__(self, inputs, begin: int, is_confined: bool = False):
        super().__init__([inputs])
        self.begin, self.end, self.is_confined = begin, None, is_confined
        self.masks_keys = False

    def is_inside(self, other: "RecordedCall") -> bool:
        """Whether the call was made while another ran."""
        return other.begin < self.begin and (other.end is None or self.end < other.end)


class _Notes(dict):
    """What one recording has so far, and whether that is enough."""

    def __init__(self, keys, enough, scored):
        super().__init__({key: [] for key in keys})
        self.enough, self.positions = enough, itertools.count()
        self.scored, self.trace = scored, current_trace()

    def begin(self, key, inputs) -> RecordedCall:
        """Note a call that begins."""
        confined = self.trace != current_trace()
        self[key].append(RecordedCall(inputs, next(self.positions), confined))
        return self[key][-1]

    def end(self, call: RecordedCall, outputs) -> None:
        """Note that a call has ended."""
        call.append(outputs)
        call.end = next(self.positions)

    def want_scores(self) -> bool:
        """Whether a layer whose scores are wanted is running."""
        return any(call.end is None for key in self.scored for call in self[key])

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
        calls = [notes.begin(self.key, inputs) for notes in listening]
        for call in calls:
            call.masks_keys = any(kwargs.get(name) is not None for name in _KEY_MASKS)
        for notes in listening:
            notes.check()
        outputs = self.call(*args, **kwargs)
        for notes, call in zip(listening, calls, strict=True):
            notes.end(call, outputs)
        for notes in listening:
            notes.check()
        return outputs


class _RecordingAttention:
    """Stands in for fused attention; notes the scores, which it does not return."""

    def __init__(self, function, module):
        self.function = function

    def __call__(self, query, key, *args, **kwargs):
        outputs = self.function(query, key, *args, **kwargs)
        for notes in getattr(_recording, "stack", ()):
            if notes.want_scores():
                call = notes.begin(FUSED_ATTENTION, query)
                notes.end(call, attention_scores(query, key, *args, **kwargs))
        return outputs


def _recorded_outside(rematerialized_call, layer):
    """Return a `rematerialized_call` that records around what is computed twice."""

    def call(layer_call, *args, **kwargs):
        inner = getattr(layer_call, "call", layer_call)
        return _RecordingCall(rematerialized_call(inner, *args, **kwargs), layer)

    return call


def _not_rematerialized(rematerialized_call, layer):
    """Return a `rematerialized_call` that keeps the activations."""
    return lambda layer_call, *args, **kwargs: layer_call


@contextlib.contextmanager
def record(
    layers: Iterable[keras.Layer],
    enough: Callable | None = None,
    *,
    model: keras.Layer | None = None,
    scored: Iterable[keras.Layer] = (),
):
    """Record inputs and outputs of layers while models run inside the `with`.

    Keras runs a subclassed model that is not built yet twice at its first call, so build
    it before. A layer in a `keras.RematScope` that has recorded layers inside keeps its
    activations, as those of the recorded layers are needed; in a graph of TensorFlow,
    where such layers can't be called, every layer does.

    Args:
        layers: to record.
        enough: from the notes so far to whether they suffice; the `with` is then left
            at once, from within the model. Default: it runs to its end.
        model: that runs; needed where it was created in a `keras.RematScope`.
        scored: the layers among them in which the scores of fused attention are recorded
            under `FUSED_ATTENTION`.

    Yields:
        A dict from the layer's `id` to a list of `RecordedCall`, in the order of running.
    """
    layers = {id(layer): layer for layer in layers}
    scored = [id(layer) for layer in scored]
    keys = [*layers, FUSED_ATTENTION] if scored else layers
    notes = _Notes(keys, enough, scored)
    if not hasattr(_recording, "stack"):
        _recording.stack = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(layers.values(), "call", _RecordingCall))
        for make, some in _remat(model, layers).items():
            stack.enter_context(replaced(some, "rematerialized_call", make))
        if scored:
            stack.enter_context(replaced_attention(_RecordingAttention))
        _recording.stack.append(notes)
        try:
            yield notes
        except _Enough as signal:
            if signal.notes is not notes:
                raise
        finally:
            _recording.stack.pop()


def _remat(model, layers: dict) -> dict:
    """Return the rematerialized layers by what takes the place of that."""
    found = {_not_rematerialized: [], _recorded_outside: []}
    for layer in rematerialized(model) if model is not None else ():
        below = flatten_layers(layer, include_self=False)
        if not takes_keywords() or any(id(x) in layers for x in below):
            found[_not_rematerialized].append(layer)
        elif id(layer) in layers:
            found[_recorded_outside].append(layer)
    return found
