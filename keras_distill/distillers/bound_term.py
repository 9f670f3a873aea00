"""A term at work inside a distiller."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill import taps
from keras_distill.data.selection import weight_for
from keras_distill.distillers import term_checks as checks
from keras_distill.distillers.term import Term
from keras_distill.losses.schedules import advance, scheduled_variable
from keras_distill.taps import heads


class BoundTerm(keras.Layer):
    """A term at work: its variables and adapters.

    `weight` and what the loss calls moving (`temperature`) are variables: a schedule
    sets them at each step, and a callback may `assign` to those that are numbers.

    Args:
        term: what it carries out.
    """

    def __init__(self, term: Term):
        super().__init__(name=term.name, dtype="float32", autocast=False)
        self.term = term
        self.weight = scheduled_variable(self, "weight", term.weight)
        for name in term.loss.scheduled:
            value = getattr(term.loss, name)
            setattr(self, name, scheduled_variable(self, name, value))

    def bind(self, student_shapes: Sequence, teacher_shapes: Sequence) -> None:
        """Make and build the adapters, and check that what comes out is comparable.

        Args:
            student_shapes: of each student tap, batch first.
            teacher_shapes: of each teacher tap.

        Raises:
            ValueError: the class counts differ, or no adapter joins the shapes.
        """
        term = self.term
        student_shapes = [tuple(shape) for shape in student_shapes]
        teacher_shapes = [tuple(shape) for shape in teacher_shapes]
        try:
            self._make_adapters(student_shapes, teacher_shapes)
            fitted = [
                [_through(a, shape) for a, shape in zip(*side, strict=True)]
                for side in (
                    (self.student_adapters, student_shapes),
                    (self.teacher_adapters, teacher_shapes),
                )
            ]
            fitted[0] = _through(self.joint_adapter, fitted[0])
            if term.loss.compares_teacher:
                for student, teacher in zip(*fitted, strict=True):
                    term.loss.match.check(student, teacher)
            checks.runs(term.loss, *fitted)
            self.memory = term.loss.memory()
            _build(self.memory, fitted[0][0])
        except ValueError as error:
            own, other = (
                " and ".join(f"'{tap}'" for tap in side)
                for side in (term.student, term.teacher)
            )
            raise ValueError(
                f"Term '{term.name}', student {own} with teacher {other}: {error}"
            ) from error
        self.built = True

    def _make_adapters(self, student_shapes: Sequence, teacher_shapes: Sequence):
        """Make both sides' adapters; none is inferred where nothing must agree."""
        loss, given = self.term.loss, self.term.adapters
        joint = None
        if all(adapter == "auto" for adapter in given):
            joint = loss.joint_adapter(student_shapes, teacher_shapes)
            _build(joint, student_shapes)
        if joint is not None:
            given = [None] * len(given)
        student, teacher = [], [None] * len(teacher_shapes)
        for place, (adapter, shape) in enumerate(
            zip(given, student_shapes, strict=True)
        ):
            other = teacher_shapes[place] if loss.compares_teacher else None
            if adapter != "auto":
                student.append(_given(adapter, shape, other))
            elif not loss.compares_teacher:
                student.append(None)
            else:
                own, teacher[place] = _inferred(loss, shape, other)
                student.append(own)
        # Set as wholes: Keras finds the layers in a list when the list is set.
        self.joint_adapter = joint
        self.student_adapters, self.teacher_adapters = student, teacher

    def advance(self, step) -> None:
        """Move what a schedule moves to its value at this step."""
        advance(self.weight, self.term.weight, step)
        for name in self.term.loss.scheduled:
            advance(getattr(self, name), getattr(self.term.loss, name), step)

    def compare(
        self,
        features: dict,
        knowledge: dict,
        *,
        student,
        teacher,
        sample_weight,
        context: dict,
    ):
        """Give the term's loss over the batch, before its weight.

        Args:
            features: the student's tensors by tap.
            knowledge: the teacher's, as the teacher gave them.
            student: has the layers that are tapped.
            teacher: turns knowledge of the output into logits.
            sample_weight: `(B,)`, `(B, L)` or None.
            context: what losses may need beside the tensors.
        """
        loss = self.term.loss
        moving = {
            name: ops.convert_to_tensor(getattr(self, name)) for name in loss.scheduled
        }
        temperature = moving.get("temperature", 1.0)
        known = [
            self._known(tap, knowledge, teacher, temperature)
            for tap in self.term.teacher
        ]
        seen = [features[tap] for tap in self.term.student]
        mask = taps.mask_of(seen[0])
        seen = [_adapt(a, x) for a, x in zip(self.student_adapters, seen, strict=True)]
        known = [
            _adapt(a, x) for a, x in zip(self.teacher_adapters, known, strict=True)
        ]
        checks.mask_fits(self.name, mask, seen[0])
        known, seen = loss.arrange(known, _adapt(self.joint_adapter, seen))
        needs = self._needs(student, teacher, context)
        weight = weight_for(sample_weight, self.term.student[0])
        return loss(known, seen, weight, **{**needs, **moving, "mask": mask})

    def _needs(self, student, teacher, context: dict) -> dict:
        """Give what the loss asks for beside the tensors."""
        wanted, own, other = self.term.loss.needs, self.term.student, self.term.teacher
        found = {name: context[name] for name in wanted if name in context}
        if "memory" in wanted:
            found["memory"] = self.memory
        if "teacher_norm" in wanted:
            found["teacher_norm"] = teacher.norm(other[0])
        if "teacher_head" in wanted:
            found["teacher_head"] = teacher.head(other[0])
        if "student_head" in wanted:
            found["student_head"] = heads.head_of(student, own[0])
        return found

    def _known(self, tap, knowledge, teacher, temperature):
        if tap.is_logits:
            return teacher.logits(knowledge[tap], temperature)
        return knowledge[tap]


def _inferred(loss, student_shape, teacher_shape):
    """Give the layers, built, that the loss wants between two shapes."""
    sides = loss.adapters(student_shape, teacher_shape)
    for layer, shape in zip(sides, (student_shape, teacher_shape), strict=True):
        _build(layer, shape)
    return sides


def _given(layer, student_shape, teacher_shape):
    """Give a user's layer, built; one that asks for the teacher's shape is told it."""
    if getattr(layer, "target_shape", student_shape) is None:
        layer.target_shape = teacher_shape
    _build(layer, student_shape)
    return layer


def _build(layer, shape) -> None:
    if layer is not None and not layer.built:
        layer.build(shape)


def _adapt(adapter, tensor):
    return tensor if adapter is None else adapter(tensor, training=True)


def _through(adapter, shape):
    return shape if adapter is None else adapter.compute_output_shape(shape)
