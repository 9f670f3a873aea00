"""What losses need in addition to their taps, with one provider per name."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill.data.selection import names_of_outputs, select
from keras_distill.distillers.gradient_scores import FIRST_CLASS_GRADIENT
from keras_distill.distillers.ignored import valid_labels, with_known_labels
from keras_distill.taps import Tap, heads
from keras_distill.taps.lengths import Lengths
from keras_distill.taps.masks import first_mask
from keras_distill.teachers.base_teacher import (
    CLASSES,
    HEAD,
    INPUT_GRADIENT,
    NORM,
    BaseTeacher,
    Request,
)

LOGITS, AUTO = Tap.output(), "auto"


@dataclasses.dataclass(frozen=True)
class Context:
    """One step, from which providers take values.

    Args:
        step: of the optimizer.
        labels: of the batch, or None.
        loss: the compiled one, or None.
        sample_ids: of the batch, or None.
        features: the student's tensors by tap.
        masks: of these, where they have one.
        lengths: what their lengths come from.
        knowledge: what the teacher returned, by tap.
        inputs: functions that return those of `"student"`, `"teacher"` and `"batch"`.
        student, teacher: of the distiller.
        training: whether adapters run in training form.
    """

    step: Any
    labels: Any
    loss: Any
    sample_ids: Any
    features: Mapping[Tap, Any]
    masks: Mapping[Tap, Any]
    lengths: Lengths
    knowledge: Mapping[Tap, Any]
    inputs: Mapping[str, Callable]
    student: keras.Model
    teacher: BaseTeacher
    training: bool = True

    def is_apart_from_labels(self, tap: Tap) -> bool:
        """Whether a sequence of the student is not the labels', as an encoder's is not."""
        return self.lengths.are_apart(str(tap), str(LOGITS))

    @property
    def output_names(self) -> list[str]:
        """The names of the student's outputs, in the order of a list of labels."""
        return names_of_outputs(self.student)

    def labels_of(self, tap: Tap):
        """Return the labels of an output; of a layer, those of the only output."""
        return with_known_labels(self.loss, self.labels, tap, self.output_names)

    def valid_samples(self, tap: Tap):
        """Return which samples' labels count, `(B,)`, if there is one label for each."""
        valid = valid_labels(self.loss, self.labels, tap, self.output_names)
        return valid if valid is not None and len(valid.shape) == 1 else None

    def teacher_tensor(
        self,
        tap: Tap,
        temperature=1.0,
        predicts: str = CLASSES,
        classes: int | None = None,
    ):
        """Return the teacher's tensor of a tap; an output as logits at a temperature.

        Args:
            tap: of the teacher.
            temperature: of the softmax in the loss.
            predicts: what the output is.
            classes: number of the first ones that count. Default: all.
        """
        tensor = self.knowledge[tap]
        if classes is not None:
            tensor = keras.tree.map_structure(lambda x: x[..., :classes], tensor)
        if not tap.is_output:
            return tensor
        return self.teacher.logits(tensor, temperature, predicts)

    def values(self, bound) -> dict:
        """Return what the loss of a bound term needs, by name, as far as it is known."""
        names = dict.fromkeys([*bound.term.loss.needs, "mask", "teacher_mask"])
        values = {name: PROVIDERS[name].value(self, bound) for name in names}
        return {name: x for name, x in values.items() if x is not None}


class Provider(NamedTuple):
    """Provides what losses name in their `needs`.

    Args:
        value: from a context and a bound term to the value, None if it is unknown.
        prepare: from term, student, teacher and the specs of their inputs; called before
            the first step, raises if the value cannot be provided. Default: nothing.
        student_taps, teacher_taps: the taps that it needs in addition to the term's.
        is_early: whether a loss can run on shapes alone without it.
    """

    value: Callable
    prepare: Callable = lambda *arguments: None
    student_taps: tuple[Tap, ...] = ()
    teacher_taps: tuple[Tap, ...] = ()
    is_early: bool = False


def _mask(context: Context, bound):
    """Return the mask of the student's first tap, without labels that are ignored."""
    choice, tap = bound.term.masks[0], bound.term.student[0]
    is_auto = choice == AUTO
    mask = context.masks.get(tap) if is_auto else _chosen(context, choice, "student")
    valid = None
    if tap.is_output or "student_head" in bound.term.loss.needs:
        valid = valid_labels(context.loss, context.labels, tap, context.output_names)
    rank = len(context.features[tap].shape)
    if valid is None or len(valid.shape) < 2 or len(valid.shape) != rank - 1:
        return mask
    return valid if mask is None else ops.logical_and(ops.cast(mask, "bool"), valid)


def _teacher_mask(context: Context, bound):
    """Return the mask of the first tap of the teacher; an average has its members'."""
    choice = bound.term.masks[1]
    if not bound.term.teacher:
        return None
    if choice != AUTO:
        return _chosen(context, choice, "teacher")
    return first_mask(context.knowledge[bound.term.teacher[0]])


def _chosen(context: Context, choice, side: str):
    """Return the mask that a term names for a side: a function's, or an input."""
    if choice is None:
        return None
    inputs = context.inputs[side]()
    if callable(choice):
        mask = choice(inputs)
    else:
        has_it = isinstance(inputs, Mapping) and choice in inputs
        mask = select(inputs if has_it else context.inputs["batch"](), choice)
    return ops.cast(ops.convert_to_tensor(mask), "bool")


def _find_norm(term, student, teacher, student_specs, teacher_specs) -> None:
    teacher.find_norm(teacher_specs, term.teacher[0])


def _check_heads(term, student, teacher, student_specs, teacher_specs) -> None:
    classes = heads.head_classes(student, student_specs, term.student[-1])
    expected = teacher.head_classes(teacher_specs, term.teacher[-1])
    if term.shared_classes is not None:
        check_shared(term, classes, expected)
    elif classes != expected:
        raise ValueError(
            f"The class counts differ: the student's last layer returns {classes} logits, "
            f"the teacher's {expected}. Both must predict the same classes in the same "
            "order; no adapter can join them."
        )


def check_shared(term, student: int | None, teacher: int | None) -> None:
    """Check that both sides have the classes that they are said to share."""
    if any(n is not None and term.shared_classes > n for n in (student, teacher)):
        raise ValueError(
            f"shared_classes is {term.shared_classes}, the first classes of both, but the "
            f"student returns {student} logits and the teacher {teacher}. Pass at "
            "most the smaller number as shared_classes."
        )


PROVIDERS = {
    "labels": Provider(lambda context, bound: context.labels_of(bound.term.student[0])),
    "sample_ids": Provider(lambda context, bound: context.sample_ids),
    "step": Provider(lambda context, bound: context.step),
    "mask": Provider(_mask, is_early=True),
    "teacher_mask": Provider(_teacher_mask, is_early=True),
    "memory": Provider(lambda context, bound: bound.memory),
    "student_logits": Provider(
        lambda context, bound: context.features[LOGITS][
            ..., : bound.term.shared_classes
        ],
        student_taps=(LOGITS,),
    ),
    "teacher_logits": Provider(
        lambda context, bound: context.teacher_tensor(
            LOGITS, 1.0, bound.predicts, bound.term.shared_classes
        ),
        teacher_taps=(LOGITS,),
    ),
    NORM: Provider(
        lambda context, bound: context.teacher.norm(bound.term.teacher[0]), _find_norm
    ),
    HEAD: Provider(
        lambda context, bound: context.teacher.head(bound.term.teacher[-1]).first(
            bound.term.shared_classes
        )
    ),
    "student_head": Provider(
        lambda context, bound: heads.head_of(
            context.student, bound.term.student[-1]
        ).first(bound.term.shared_classes),
        _check_heads,
    ),
}


def student_taps(terms: Iterable) -> tuple[Tap, ...]:
    """Return the taps of the student of all terms, each once."""
    taps = []
    for term in terms:
        needed = (PROVIDERS[name].student_taps for name in term.loss.needs)
        taps += [*term.student, *(tap for group in needed for tap in group)]
    return tuple(dict.fromkeys(taps))


def requests_of(terms: Iterable) -> tuple[Request, ...]:
    """Return what each term needs from the teacher."""
    return tuple(_request(term) for term in terms)


def _request(term) -> Request:
    needs = set(term.loss.needs)
    taps = [*term.teacher]
    taps += [tap for name in term.loss.needs for tap in PROVIDERS[name].teacher_taps]
    if FIRST_CLASS_GRADIENT in term.student:
        taps.append(LOGITS)
    if any(tap.is_gradient for tap in term.teacher):
        needs.add(INPUT_GRADIENT)
    taps = tuple(dict.fromkeys(taps))
    # The loss of a default term may still change with the task.
    settled = getattr(term, "task", term) is not None
    temperature, predicts = _temperature(term), term.loss.predicts if settled else None
    return Request(term.name, taps, frozenset(needs), temperature, predicts, settled)


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
