"""Suggestions of layers of a student and a teacher to compare."""

import dataclasses
import re
from collections.abc import Sequence

import keras

from keras_distill.taps.features import Features, Shape, features_of, nearest_shares


@dataclasses.dataclass(frozen=True)
class TapPair:
    """Two layers to compare.

    Args:
        student: path of the student's layer.
        teacher: path of the teacher's.
        student_shape: of the output of the student's layer, batch first.
        teacher_shape: of the output of the teacher's layer.
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
        own, other = (
            "x".join(str(size or "?") for size in shape[1:])
            for shape in (self.student_shape, self.teacher_shape)
        )
        taps = f'"{self.student}", "{self.teacher}", name="{self.name}"'
        for side, size in self.map_sizes().items():
            taps += f", {side}=kd.adapters.TokensToMap({size})"
        return f"kd.Term(kd.losses.{self.loss}(), {taps}),  # {own} from {other}"

    @property
    def name(self) -> str:
        """The name of a term on the pair: the student's path, as logs can show it."""
        return re.sub(r"[^\w-]", "_", self.student)

    @property
    def loss(self) -> str:
        """The name of a loss that needs no tuning first."""
        rank = max(len(self.student_shape), len(self.teacher_shape))
        return {4: "AttentionMap", 2: "DistanceRelation"}.get(rank, "Hint")

    def map_sizes(self) -> dict[str, tuple]:
        """Return, by the argument of `kd.Term`, the size of the map that tokens become."""
        shapes = self.student_shape, self.teacher_shape
        if len(shapes[0]) == len(shapes[1]):
            return {}
        side = "adapter" if len(shapes[0]) == 3 else "teacher_adapter"
        return {side: max(shapes, key=len)[1:-1]}


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
    their model and up to rounding: the last of each resolution, then the last vectors
    before the outputs, then layers in between that lie equally deep in their stage. In
    sequence models, vision transformers among them, blocks are paired that lie equally
    deep; blocks over the patches of an image are paired with maps of the same size by a
    `kd.adapters.TokensToMap`. Nothing is computed.

    Args:
        student: any Keras model, also nested or subclassed.
        teacher: the same.
        student_input: a batch, or specs, for a model that does not declare its inputs.
        teacher_input: the same for the teacher.

    Returns:
        A tuple of `TapPair`; print it for lines to paste.

    Raises:
        ValueError: a model does not declare its inputs, or computes with channels first,
            or no layers can be paired.

    Example:
        >>> print(kd.suggest_taps(student, teacher))
        kd.Term(kd.losses.AttentionMap(), "stack1", "stack1", name="stack1"),  # ...
    """
    own = features_of(student, student_input)
    other = features_of(teacher, teacher_input)
    ends, between = [], []
    for stage, partner in _stages(own, other):
        pairs = [TapPair(*pair, True) for pair in _pairs(stage, partner)]
        ends += pairs[:1]
        between += [dataclasses.replace(pair, stage_end=False) for pair in pairs[1:]]
    # Blocks of a sequence have no stages: each of them is an end.
    for stack, partner in _stacks(own.blocks, other.blocks):
        ends += [TapPair(*pair, True) for pair in _pairs(stack, partner)]
    ends += [TapPair(*pair, True) for pair in _pairs(own.vector, other.vector)]
    if not ends:
        raise ValueError(
            f"No layer of '{student.name}' can be paired with one of '{teacher.name}': "
            f"the student has {_kinds(own)}, the teacher {_kinds(other)}. "
            "Name layers in a kd.Term yourself, and an adapter between them."
        )
    return TapPairs(ends + between)


def _stages(student: Features, teacher: Features) -> list[tuple]:
    """Return the stages of one resolution of both models, tokens beside maps."""
    pairs = nearest_shares(student.maps, teacher.maps)
    found = [(student.maps[own], teacher.maps[other]) for own, other in pairs]
    if bool(student.blocks) != bool(teacher.blocks):
        own, other = student.grids() or student.maps, teacher.grids() or teacher.maps
        found += [
            (own[share], other[nearest])
            for share, nearest in nearest_shares(own, other)
            if _is_one_size(own[share][-1][1], other[nearest][-1][1])
        ]
    return found


def _is_one_size(student: Shape, teacher: Shape) -> bool:
    """Whether the tokens of one are as many as the places of the other's map, or more."""
    (_, *places, _), tokens = sorted((student, teacher), key=len)[::-1]
    return None not in places and 0 <= tokens[1] - places[0] * places[1] < 6


def _stacks(student: list, teacher: list) -> list[tuple]:
    """Pair the stacks of blocks, as encoder and decoder, in the order of their calls."""
    if len(student) == len(teacher):
        return list(zip(student, teacher, strict=True))
    return [(student[-1], teacher[-1])] if student and teacher else []


def _pairs(student: Sequence, teacher: Sequence) -> list:
    """Pair layers of one stage by depth, the last with the last."""
    if not teacher:
        return []
    pairs = []
    for index in range(len(student), 0, -1):
        partner = -(-index * len(teacher) // len(student)) - 1
        (path, shape), (teacher_path, target) = student[index - 1], teacher[partner]
        pairs.append((path, teacher_path, shape, target))
    return pairs


def _kinds(features: Features) -> str:
    """Return the resolutions and kinds of a model's layers, for an error."""
    shares = ", ".join(map(str, features.maps))
    kinds = [f"maps at {shares} of the input's height and width"] if shares else []
    kinds += ["sequences"] if features.blocks else []
    return ", ".join(kinds + (["a vector"] if features.vector else [])) or "none"
