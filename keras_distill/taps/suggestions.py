"""Suggestions of layers of a student and a teacher to compare."""

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
    """Two layers to compare.

    Args:
        student: path of the student's layer.
        teacher: path of the teacher's.
        student_shape: of the output of the student's layer, batch first.
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
        """Return a line for the list of terms, with a loss that needs no tuning first."""
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
        """Return a line per pair."""
        return "\n".join(map(str, self))

    __repr__ = __str__


def suggest_taps(
    student: keras.Model,
    teacher: keras.Model,
    *,
    student_input=None,
    teacher_input=None,
) -> TapPairs:
    """Suggest which layers to compare, the ends of stages first.

    Layers are paired that see the image at the same resolution, relative to the input of
    their model: the last of each resolution, then the last vectors before the logits,
    then layers in between that lie equally deep in their stage. In sequence models,
    blocks are paired that lie equally deep. Nothing is computed.

    Args:
        student: any Keras model, also nested or subclassed.
        teacher: the same.
        student_input: a batch, or specs, for a model that does not declare its inputs.
        teacher_input: the same for the teacher.

    Returns:
        A tuple of `TapPair`; print it for lines to paste.

    Raises:
        ValueError: a model does not declare its inputs, or no layers can be paired.

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
            f"No layer of '{student.name}' can be paired with one of '{teacher.name}': their "
            f"resolutions, relative to the inputs, are {list(own)} and {list(other)}. "
            "Name layers in a kd.Term yourself, and an adapter between them."
        )
    return TapPairs(ends + between)


_SEQUENCE, _VECTOR = "sequence", "vector"


def _pairs(student: Sequence, teacher: Sequence) -> list:
    """Pair layers of one stage by depth, the last with the last."""
    pairs = []
    for index in range(len(student), 0, -1):
        partner = -(-index * len(teacher) // len(student)) - 1
        (path, shape), (teacher_path, target) = student[index - 1], teacher[partner]
        pairs.append((path, teacher_path, shape, target))
    return pairs


@dataclasses.dataclass(frozen=True)
class _Call:
    """The inputs and outputs of a layer's first call."""

    path: str
    layer: keras.Layer
    inputs: object
    outputs: object

    @property
    def shape(self) -> Shape:
        return tuple(self.outputs.shape)


def _stages(model: keras.Model, inputs) -> dict[object, list[tuple[str, Shape]]]:
    """Return the layers worth a tap by resolution, in the order of their calls."""
    inputs = tracing.input_of(model) if inputs is None else inputs
    if inputs is None:
        raise ValueError(
            f"The model '{model.name}' does not declare its inputs; pass one batch of "
            "them as student_input or teacher_input."
        )
    size = next(
        (x.shape[1:-1] for x in keras.tree.flatten(inputs) if len(x.shape) == 4), None
    )
    stages: dict[object, list[_Call]] = {}
    for call in _calls(model, inputs):
        # Without an image, tensors of rank 4 are heads of attention.
        if _is_worth_a_tap(call) and (size or len(call.shape) < 4):
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
    """Keep the outermost blocks of a sequence model, if it has any."""
    blocks = [call for call in calls if taps.sublayers(call.layer)]
    depth = min((call.path.count("/") for call in blocks), default=0)
    return [call for call in blocks if call.path.count("/") == depth] or calls


def _until_merged(calls: list[_Call]) -> list[_Call]:
    """Cut off what follows the last merge of a stage, where the next stage begins."""
    merges = (layers.Add, layers.Average, layers.Concatenate)
    places = [i for i, call in enumerate(calls) if isinstance(call.layer, merges)]
    if not places:
        return calls
    end, following = places[-1], calls[places[-1] + 1 : places[-1] + 2]
    for call in following:
        if isinstance(call.layer, (layers.ReLU, layers.Activation)):
            end += call.inputs is calls[end].outputs
    return calls[: end + 1]


def _calls(model: keras.Model, inputs) -> list[_Call]:
    """Return the calls that compute each tensor once, under their shortest path."""
    paths = {}
    for path in taps.layer_paths(model):
        paths.setdefault(id(taps.find_layer(model, path)), path)
    found = [taps.find_layer(model, path) for path in paths.values()]
    runs = []

    def run(inputs):
        with recording.record(found, model=model) as notes:
            outputs = model(inputs, training=False)
        made = {}
        for layer in found:
            for given, output in notes[id(layer)][:1]:
                if hasattr(output, "shape"):
                    call = _Call(paths[id(layer)], layer, given, output)
                    # Moved to the end: a nested model returns the output of its last layer.
                    made[id(output)] = [*made.pop(id(output), []), call]
        runs.append(
            [min(same, key=lambda call: call.path.count("/")) for same in made.values()]
        )
        return outputs

    tracing.trace(run, inputs)
    return runs[-1]


def _is_worth_a_tap(call: _Call) -> bool:
    """Whether a layer computes features, not input, padding or shapes alone."""
    idle = (layers.InputLayer, layers.ZeroPadding2D, layers.Dropout, layers.Flatten)
    return not isinstance(call.layer, idle) and 2 <= len(call.shape) <= 4


def _resolution(shape: Shape, size):
    """Return height and width relative to the input's, or the kind of tensor."""
    if len(shape) != 4:
        return _VECTOR if len(shape) == 2 else _SEQUENCE
    if None in size or None in shape[1:-1]:
        return shape[1:-1]
    return tuple(
        round(own / whole, 2) for own, whole in zip(shape[1:-1], size, strict=True)
    )
