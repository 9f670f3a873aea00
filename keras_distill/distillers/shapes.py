"""What a distiller taps, and the shapes of it, found without computing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras

from keras_distill import taps
from keras_distill.taps import Tap
from keras_distill.teachers import Teacher


def taps_of(side: str, terms: Iterable) -> tuple[Tap, ...]:
    """List the taps of all terms, each once.

    Args:
        side: `"student"` or `"teacher"`.
        terms: of the distiller.
    """
    wanted: dict[Tap, None] = {}
    for term in terms:
        wanted.update(dict.fromkeys(getattr(term, side)))
        if f"{side}_logits" in term.loss.needs:
            wanted[Tap(taps.LOGITS)] = None
    return tuple(wanted)


def of_student(student: keras.Model, inputs, wanted: Sequence[Tap]) -> dict:
    """Give the shape of each of the student's taps, by the tap's text."""

    def run(inputs):
        outputs, tapped = taps.forward(student, inputs, wanted, training=False)
        return [tapped[tap] for tap in wanted] or [outputs]

    return _shapes(run, inputs, wanted)


def of_teacher(teacher: Teacher, inputs, wanted: Sequence[Tap]) -> dict:
    """Give the shape of each of the teacher's taps, by the tap's text."""

    def run(inputs):
        knowledge = teacher(inputs, wanted)
        return [
            teacher.logits(knowledge[tap]) if tap.is_logits else knowledge[tap]
            for tap in wanted
        ]

    return _shapes(run, inputs, wanted) if wanted else {}


def _shapes(run, inputs, wanted) -> dict:
    specs = taps.trace(run, inputs)
    return {
        str(tap): list(spec.shape) for tap, spec in zip(wanted, specs, strict=False)
    }
