"""Which layers of a student and a teacher go together."""

import dataclasses
import re
from collections.abc import Sequence

import keras
from keras import layers

from keras_distill import taps
from keras_distill.taps import recording, tracing

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class TapPair:
    """Two layers that go together.

    Args:
        student: path of the student's layer.
        teacher: path of the teacher's.
        student_shape: of what it gives, batch first.
        teacher_shape: the same of the teacher's.
        stage_end: whether both are the last of their resolution, or the last vector.

    Example:
        >>> pair = kd.suggest_taps(student, teacher)[0]
        >>> kd.Term(kd.losses.AttentionMap(), pair.student, pair.teacher)
    """

    student: str
    teacher: str
    student_shape: Shape
    teacher_shape: Shape
    stage_end: bool

    def __str__(self) -> str:
        """Give a line for the list of terms, with a loss that needs no tuning first."""
        loss = {4: "AttentionMap", 2: "DistanceRelation"}.get(
            len(self.student_shape), "Hint"
        )
        own, other = (
            "x".join(str(size or "?") for size in shape[1:])
            for shape in (self.student_shape, self.teacher_shape)
        )
        name = re.sub(r"[^\w.-]", ".", self.student)
        taps = f'"{self.student}", "{self.teacher}", name="{name}"'
        return f"kd.Term(kd.losses.{loss}(), {taps}),  # {own} from {other}"


class TapPairs(tuple):
    """Pairs of layers; printed, they are lines to paste into `terms=[...]`.

    Example:
        >>> print(kd.suggest_taps(student, teacher))
    """

    def __str__(self) -> str:
        """Give a line a pair."""
        return "\n".join(map(str, self))

    __repr__ = __str__


def suggest_taps(
    student: keras.Model,
    teacher: keras.Model,
    *,
    student_input=None,
    teacher_input=None,
) -> TapPairs:
    """Suggest which layers to compare, ends of stages first.

    Layers go together that see the image at one resolution, relative to their net's
    input: the last of each resolution, then the last vectors before the logits, then
    layers in between that lie equally deep in their stage. In sequence models blocks go
    together that lie equally deep. Nothing is computed.

    Args:
        student: any Keras model, nested or subclassed ones too.
        teacher: the same.
        student_input: a batch, or specs, for a model that does not say what it takes.
        teacher_input: the same for the teacher.

    Returns:
        A tuple of `TapPair`; print it for lines to paste.

    Raises:
        ValueError: a model does not say what it takes, or nothing goes together.

    Example:
        >>> print(kd.suggest_taps(student, teacher))
        kd.Term(kd.losses.AttentionMap(), "stack1", "stack1", name="stack1"),  # ...
    """
    own, other = _stages(student, student_input), _stages(teacher, teacher_input)
    ends, between = [], []
    for resolution in own:
        if resolution not in other:
            continue
        pairs = _pairs(own[resolution], other[resolution])
        # Blocks of a sequence have no stages: each of them is an end.
        first = len(pairs) if resolution == _SEQUENCE else 1
        ends += [TapPair(*pair, True) for pair in pairs[:first]]
        between += [TapPair(*pair, False) for pair in pairs[first:]]
    if not ends:
        raise ValueError(
            f"No layer of '{student.name}' goes with one of '{teacher.name}': their "
            f"resolutions, relative to the inputs, are {list(own)} and {list(other)}. "
            "Name layers in a kd.Term yourself, and an adapter between them."
        )
    return TapPairs(ends + between)


_SEQUENCE, _VECTOR = "sequence", "vector"


def _pairs(own: Sequence, other: Sequence) -> list:
    """Pair layers of one stage by depth, the last with the last."""
    found = []
    for place in range(len(own), 0, -1):
        match = -(-place * len(other) // len(own)) - 1
        (path, shape), (other_path, other_shape) = own[place - 1], other[match]
        found.append((path, other_path, shape, other_shape))
    return found


@dataclasses.dataclass(frozen=True)
class _Call:
    """A layer's first call: what it took and what it made."""

    path: str
    layer: keras.Layer
    given: object
    made: object

    @property
    def shape(self) -> Shape:
        return tuple(self.made.shape)


def _stages(model: keras.Model, inputs) -> dict[object, list[tuple[str, Shape]]]:
    """List layers that are worth a tap by resolution, in the order of the calls."""
    inputs = tracing.input_of(model) if inputs is None else inputs
    if inputs is None:
        raise ValueError(
            f"The model '{model.name}' does not say what it takes; give one batch of its "
            "inputs as student_input or teacher_input."
        )
    size = next(
        (x.shape[1:-1] for x in keras.tree.flatten(inputs) if len(x.shape) == 4), None
    )
    stages: dict[object, list[_Call]] = {}
    for call in _calls(model, inputs):
        # Without an image, what looks like a map is a head of attention.
        if _worth(call) and (size or len(call.shape) < 4):
            stages.setdefault(_resolution(call.shape, size), []).append(call)
    # The last vector is the logits.
    stages[_VECTOR] = stages.pop(_VECTOR, [])[-2:-1]
    if _SEQUENCE in stages:
        stages[_SEQUENCE] = _blocks(stages[_SEQUENCE])
    return {
        kind: [(call.path, call.shape) for call in _until_merged(calls)]
        for kind, calls in stages.items()
        if calls
    }


def _blocks(calls: list[_Call]) -> list[_Call]:
    """Keep the outermost blocks of a sequence model, where it is made of blocks."""
    blocks = [call for call in calls if taps.sublayers(call.layer)]
    depth = min((call.path.count("/") for call in blocks), default=0)
    return [call for call in blocks if call.path.count("/") == depth] or calls


def _until_merged(calls: list[_Call]) -> list[_Call]:
    """Cut off what follows the last merge of a stage: it is the next stage's begin."""
    merges = (layers.Add, layers.Average, layers.Concatenate)
    places = [i for i, call in enumerate(calls) if isinstance(call.layer, merges)]
    if not places:
        return calls
    end, following = places[-1], calls[places[-1] + 1 : places[-1] + 2]
    for call in following:
        if isinstance(call.layer, (layers.ReLU, layers.Activation)):
            end += call.given is calls[end].made
    return calls[: end + 1]


def _calls(model: keras.Model, inputs) -> list[_Call]:
    """List the calls that make each tensor once, under its shortest path."""
    paths = {}
    for path in taps.layer_paths(model):
        paths.setdefault(id(taps.find_layer(model, path)), path)
    found = [taps.find_layer(model, path) for path in paths.values()]
    runs = []

    def run(inputs):
        with recording.record(found) as notes:
            outputs = model(inputs, training=False)
        made = {}
        for layer in found:
            for given, output in notes[id(layer)][:1]:
                if hasattr(output, "shape"):
                    call = _Call(paths[id(layer)], layer, given, output)
                    # Moved to the end: a nested model gives what its last layer gives.
                    made[id(output)] = [*made.pop(id(output), []), call]
        runs.append(
            [min(same, key=lambda call: call.path.count("/")) for same in made.values()]
        )
        return outputs

    tracing.trace(run, inputs)
    return runs[-1]


def _worth(call: _Call) -> bool:
    """Tell whether a layer computes features, not input, padding or shapes alone."""
    idle = (layers.InputLayer, layers.ZeroPadding2D, layers.Dropout, layers.Flatten)
    return not isinstance(call.layer, idle) and 2 <= len(call.shape) <= 4


def _resolution(shape: Shape, size):
    """Give height and width as a share of the input's, or the kind of tensor."""
    if len(shape) != 4:
        return _VECTOR if len(shape) == 2 else _SEQUENCE
    if None in size or None in shape[1:-1]:
        return shape[1:-1]
    return tuple(
        round(own / whole, 2) for own, whole in zip(shape[1:-1], size, strict=True)
    )
