"""What losses need beside the tensors of their taps, with one provider per name."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import ClassVar

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import taps as tapping
from keras_distill.distillers.gradient_scores import FIRST_CLASS_GRADIENT
from keras_distill.taps import Tap, heads
from keras_distill.teachers.base_teacher import (
    HEAD,
    INPUT_GRADIENT,
    NORM,
    BaseTeacher,
    Request,
)

LOGITS = Tap.output()


@dataclasses.dataclass(frozen=True)
class Context:
    """One step, from which providers take values.

    Args:
        step: of the optimizer.
        labels: of the batch, or None.
        sample_ids: of the batch, or None.
        features: the student's tensors by tap.
        knowledge: what the teacher returned, by tap.
        student: the student.
        teacher: the teacher.
    """

    step: object
    labels: object
    sample_ids: object
    features: Mapping[Tap, object]
    knowledge: Mapping[Tap, object]
    student: keras.Model
    teacher: BaseTeacher

    def teacher_tensor(self, tap: Tap, temperature=1.0):
        """Return the teacher's tensor of a tap; an output as logits at a temperature."""
        tensor = self.knowledge[tap]
        return self.teacher.logits(tensor, temperature) if tap.is_output else tensor

    def values(self, bound) -> dict:
        """Return what the loss of a bound term needs, by name; what is unknown is left out."""
        values = {n: PROVIDERS[n].value(self, bound) for n in bound.term.loss.needs}
        mask = PROVIDERS["mask"].value(self, bound)
        return {n: x for n, x in values.items() if x is not None} | {"mask": mask}


class Provider:
    """Provides what a loss names in its `needs`.

    Class attributes that a provider sets:

    - `student_taps`, `teacher_taps`: taps that it needs beside those of the term.
    - `known_early`: whether a loss can run on shapes alone without it.
    """

    student_taps: ClassVar[tuple[Tap, ...]] = ()
    teacher_taps: ClassVar[tuple[Tap, ...]] = ()
    known_early: ClassVar[bool] = False

    def check(self, term, student, teacher, student_specs, teacher_specs) -> None:
        """Check, before the first step, that the value can be provided.

        Args:
            term: whose loss needs it.
            student, teacher: of the distiller.
            student_specs, teacher_specs: of their inputs.

        Raises:
            ValueError: it cannot.
        """

    def value(self, context: Context, bound):
        """Return the value for a bound term, or None if it is unknown."""
        raise NotImplementedError


class Labels(Provider):
    """The labels of the batch."""

    def value(self, context, bound):
        """Return the labels."""
        return context.labels


class SampleIds(Provider):
    """The ids of the samples."""

    def value(self, context, bound):
        """Return the ids."""
        return context.sample_ids


class Step(Provider):
    """The step of the optimizer."""

    def value(self, context, bound):
        """Return the step."""
        return context.step


class StudentLogits(Provider):
    """The student's logits."""

    student_taps = (LOGITS,)

    def value(self, context, bound):
        """Return logits, `(B, ..., K)`."""
        return context.features[LOGITS]


class TeacherLogits(Provider):
    """The teacher's logits, whose softmax at temperature 1 is its prediction."""

    teacher_taps = (LOGITS,)

    def value(self, context, bound):
        """Return logits, `(B, ..., K)`."""
        return context.teacher_tensor(LOGITS)


class Mask(Provider):
    """The Keras mask of the student's first tap."""

    known_early = True

    def value(self, context, bound):
        """Return the mask, `(B, L)`, or None."""
        return tapping.mask_of(context.features[bound.term.student[0]])


class Memory(Provider):
    """The layer that the loss's `memory()` created."""

    def value(self, context, bound):
        """Return the layer."""
        return bound.memory


class TeacherNorm(Provider):
    """Standard deviation and mean of the batch normalization at the teacher's tap."""

    def check(self, term, student, teacher, student_specs, teacher_specs):
        """Find the normalization."""
        teacher.find_norm(teacher_specs, term.teacher[0])

    def value(self, context, bound):
        """Return both, `(C,)` each."""
        return context.teacher.norm(bound.term.teacher[0])


class StudentHead(Provider):
    """The last layer of the student, whose input is tapped."""

    def check(self, term, student, teacher, student_specs, teacher_specs):
        """Check that the last layers of both models have as many classes."""
        classes = heads.head_classes(student, student_specs, term.student[0])
        expected = teacher.head_classes(teacher_specs, term.teacher[0])
        if classes != expected:
            raise ValueError(
                f"The class counts differ: the student's last layer returns {classes} "
                f"logits, the teacher's {expected}. Both must predict the same classes "
                "in the same order; no adapter can join them."
            )

    def value(self, context, bound):
        """Return kernel, bias and whether the kernel is transposed."""
        return heads.head_of(context.student, bound.term.student[0])


class TeacherHead(Provider):
    """The last layer of the teacher, whose input is tapped."""

    def value(self, context, bound):
        """Return kernel, bias and whether the kernel is transposed."""
        return context.teacher.head(bound.term.teacher[0])


PROVIDERS: dict[str, Provider] = {
    "labels": Labels(),
    "sample_ids": SampleIds(),
    "step": Step(),
    "student_logits": StudentLogits(),
    "teacher_logits": TeacherLogits(),
    "mask": Mask(),
    "memory": Memory(),
    NORM: TeacherNorm(),
    "student_head": StudentHead(),
    HEAD: TeacherHead(),
}


def student_taps(terms: Iterable) -> tuple[Tap, ...]:
    """Return the taps of the student of all terms, each once."""
    taps = [
        (t.student, *(PROVIDERS[n].student_taps for n in t.loss.needs)) for t in terms
    ]
    return tuple(
        dict.fromkeys(tap for groups in taps for group in groups for tap in group)
    )


def requests_of(terms: Iterable) -> list[Request]:
    """Return what each term needs from the teacher."""
    return [_request(term) for term in terms]


def _request(term) -> Request:
    needs = set(term.loss.needs)
    extra = [tap for name in term.loss.needs for tap in PROVIDERS[name].teacher_taps]
    if FIRST_CLASS_GRADIENT in term.student:
        extra.append(LOGITS)
    if any(tap.is_gradient for tap in term.teacher):
        needs.add(INPUT_GRADIENT)
    taps = tuple(dict.fromkeys([*term.teacher, *extra]))
    return Request(term.name, taps, frozenset(needs), _temperature(term))


def _temperature(term) -> float | str | None:
    """Return the temperature at which a term compares predictions, None if it does not."""
    compares_logits = "teacher_logits" in term.loss.needs
    if not compares_logits and not any(tap.is_output for tap in term.teacher):
        return None
    if "temperature" not in term.loss.scheduled or compares_logits:
        return 1.0
    temperature = term.loss.temperature
    is_scheduled = isinstance(temperature, LearningRateSchedule)
    return "scheduled" if is_scheduled else float(temperature)
