"""What must agree between two tensors, and which adapters make it agree."""

import dataclasses
from typing import ClassVar

import keras

from keras_distill.adapters.adapter import linear
from keras_distill.adapters.average_pool import AveragePool

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Match:
    """What must agree of student and teacher before a loss compares them.

    A loss names one of these in its `match`; subclass it for a rule of your own.

    - `Match.ALL`: every axis but the batch.
    - `Match.SPACE`: height and width, or length.
    - `Match.CHANNELS`: the last axis.
    - `Match.NOTHING`: no axis; nothing is inferred.
    - `Match.CLASSES`: the tensors are logits over the same classes in the same order,
      which no adapter can bring about; maps of logits are pooled to one size.
    - `Match.OUTPUTS`: every axis, of outputs that mean the same; nothing is inferred.

    Args:
        agrees: what must agree, in the words of an error.
        axes: the axes of a shape, batch first, that must agree.
        pools: whether the larger of two maps is pooled to the size of the smaller.
        projects: whether the student's channels are projected to the teacher's.

    Example:
        >>> class MyLoss(kd.losses.DistillationLoss):
        ...     match = kd.adapters.Match.SPACE
    """

    agrees: str
    axes: slice
    pools: bool = False
    projects: bool = False

    ALL: ClassVar["Match"]
    SPACE: ClassVar["Match"]
    CHANNELS: ClassVar["Match"]
    NOTHING: ClassVar["Match"]
    CLASSES: ClassVar["Match"]
    OUTPUTS: ClassVar["Match"]

    def check(self, student: Shape, teacher: Shape) -> None:
        """Check that two shapes agree; a size that is unknown agrees with any.

        Args:
            student: shape of the student's tensor, batch first, after its adapter.
            teacher: shape of the teacher's.

        Raises:
            ValueError: they do not agree.
        """
        pairs = student[self.axes], teacher[self.axes]
        agree = len(pairs[0]) == len(pairs[1]) and all(
            a == b or None in (a, b) for a, b in zip(*pairs, strict=True)
        )
        if not agree:
            raise ValueError(self._disagreement(student, teacher))

    def infer(
        self, student: Shape, teacher: Shape
    ) -> tuple[keras.Layer | None, keras.Layer | None]:
        """Infer the adapters that make two shapes agree.

        Args:
            student: shape of the student's tensor, batch first.
            teacher: shape of the teacher's.

        Returns:
            The layer for the student and the layer for the teacher, None for no layer.

        Raises:
            ValueError: no adapter joins the shapes.

        Example:
            >>> student, teacher = (None, 8, 8, 16), (None, 4, 4, 64)
            >>> kd.adapters.Match.ALL.infer(student, teacher)
        """
        pool_student = pool_teacher = project = None
        if self.pools:
            pool_student, pool_teacher = _pooling(student, teacher)
        if self.projects and student[-1] != teacher[-1]:
            project = _projection(student, teacher)
        return chain([pool_student, project]), pool_teacher

    def _disagreement(self, student: Shape, teacher: Shape) -> str:
        return (
            f"the student's shape {student} and the teacher's {teacher} must agree in "
            f"{self.agrees}. Use adapter='auto', or a layer that returns {teacher}."
        )


class _Predictions(Match):
    """Outputs, of which maps and sequences are pooled as features are."""

    def infer(self, student: Shape, teacher: Shape):
        pairs = zip(student[1:-1], teacher[1:-1], strict=False)
        if len(student) != len(teacher) or all(
            a == b or None in (a, b) for a, b in pairs
        ):
            return None, None
        return super().infer(student, teacher)

    def _disagreement(self, student: Shape, teacher: Shape) -> str:
        if 1 not in (len(student), len(teacher)):
            return super()._disagreement(student, teacher)
        side = "student" if len(student) == 1 else "teacher"
        return (
            f"the student returns the shape {student}, the teacher {teacher}. Let the "
            f"{side} return (B, 1): end it in keras.layers.Reshape((1,))."
        )


class _Classes(_Predictions):
    def _disagreement(self, student: Shape, teacher: Shape) -> str:
        if student[-1] == teacher[-1] or 1 in (len(student), len(teacher)):
            return super()._disagreement(student, teacher)
        if 1 in (student[-1], teacher[-1]):
            return (
                f"the numbers of outputs differ: {student[-1]} of the student, "
                f"{teacher[-1]} of the teacher. Both must predict the same values or "
                "classes in the same order; no adapter can join them."
            )
        return (
            f"the class counts differ: the student returns {student[-1]} logits, the "
            f"teacher {teacher[-1]}. Both must predict the same classes, or values, in "
            "the same order; no adapter can join them."
        )


class _Outputs(_Predictions):
    def _disagreement(self, student: Shape, teacher: Shape) -> str:
        if 1 in (len(student), len(teacher)):
            return super()._disagreement(student, teacher)
        return (
            f"the outputs differ: the student returns the shape {student}, the teacher "
            f"{teacher}. Both must predict the same numbers; to compare others, pass an "
            f"adapter layer that returns {teacher}."
        )


Match.ALL = Match("every axis", slice(1, None), pools=True, projects=True)
Match.SPACE = Match("space", slice(1, -1), pools=True)
Match.CHANNELS = Match("channels", slice(-1, None), projects=True)
Match.NOTHING = Match("nothing", slice(0))
Match.CLASSES = _Classes("every axis", slice(1, None), pools=True)
Match.OUTPUTS = _Outputs("every axis", slice(1, None), pools=True)


def _projection(student: Shape, teacher: Shape) -> keras.Layer:
    if student[-1] is None or teacher[-1] is None:
        raise ValueError(
            f"no adapter joins the student's shape {student} and the teacher's "
            f"{teacher}: the channels must be known."
        )
    return linear(teacher[-1], student, dtype="float32", name="projection")


def _pooling(student: Shape, teacher: Shape):
    """Pool whichever is larger; axes are never enlarged, as that invents detail."""
    if len(student) != len(teacher):
        raise ValueError(
            f"no adapter joins the student's shape {student} and the teacher's "
            f"{teacher}: they have {len(student)} and {len(teacher)} axes. Tap two "
            "vectors, two sequences or two maps, or pass an adapter layer."
        )
    sizes, targets = student[1:-1], teacher[1:-1]
    if sizes == targets:
        return None, None
    if None in sizes or None in targets or len(sizes) > 3:
        raise ValueError(
            f"no adapter joins the student's shape {student} and the teacher's "
            f"{teacher}: pooling needs sizes that are known. Fix the input size, or "
            "pass an adapter layer."
        )
    common = tuple(min(pair) for pair in zip(sizes, targets, strict=True))
    return (
        AveragePool(common, name="pool") if sizes != common else None,
        AveragePool(common, name="pool") if targets != common else None,
    )


def chain(steps: list[keras.Layer | None]) -> keras.Layer | None:
    """Chain layers into one.

    Args:
        steps: layers, or None for none.

    Returns:
        One layer that applies them in order, or None if there are none.

    Example:
        >>> pool = keras.layers.GlobalAveragePooling2D()
        >>> kd.adapters.chain([pool, keras.layers.Dense(64)])
    """
    steps = [step for step in steps if step is not None]
    if len(steps) < 2:
        return steps[0] if steps else None
    return _Chain(steps, name="adapter")


@keras.saving.register_keras_serializable(package="keras_distill", name="Chain")
class _Chain(keras.Sequential):
    """Layers in a row, to which masks are passed."""

    def __init__(self, layers=None, trainable=True, name=None):
        super().__init__(layers, trainable, name)
        # The global dtype policy would cast the inputs.
        self.dtype_policy = keras.DTypePolicy("float32")
        self.supports_masking = True
