"""What a distiller taps, and the shapes of it, found without computing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras

from keras_distill import taps
from keras_distill.taps import Tap, tracing
from keras_distill.teachers.teacher import Teacher


def taps_of(side: str, terms: Iterable) -> tuple[Tap, ...]:
    """List the taps of all terms, each once.

    Args:
        side: `"student"` or `"teacher"`.
        terms: of the distiller.
    """
    wanted: dict[Tap, None] = {}
    for term in terms:
        wanted.update(dict.fromkeys(getattr(term, side)))
        of_class = taps.Tap(taps.CLASS_GRADIENT) in term.student
        if f"{side}_logits" in term.loss.needs or (of_class and side == "teacher"):
            wanted[Tap(taps.LOGITS)] = None
    return tuple(wanted)


def of_student(student: keras.Model, inputs, wanted: Sequence[Tap]) -> dict:
    """Give the shape of each of the student's taps, by the tap's text."""

    def run(inputs, wanted):
        outputs, tapped = taps.forward(student, inputs, wanted, training=False)
        return [tapped[tap] for tap in wanted] or [outputs]

    return _shapes(run, inputs, wanted)


def of_teacher(teacher: Teacher, inputs, wanted: Sequence[Tap]) -> dict:
    """Give the shape of each of the teacher's taps, by the tap's text."""

    def run(inputs, wanted):
        knowledge = teacher(inputs, wanted)
        return [
            teacher.logits(knowledge[tap]) if tap.is_logits else knowledge[tap]
            for tap in wanted
        ]

    return _shapes(run, inputs, wanted) if wanted else {}


def _shapes(run, inputs, wanted) -> dict:
    traced = [tap for tap in wanted if not tap.is_gradient]
    specs = tracing.trace(lambda x: run(x, traced), inputs)
    found = {
        str(tap): list(spec.shape) for tap, spec in zip(traced, specs, strict=False)
    }
    for tap in wanted:
        if tap.is_gradient:
            # A gradient has the shape of what it is taken by.
            found[str(tap)] = list(_image(inputs, tap).shape)
    return found


def _image(inputs, tap: Tap):
    leaves = keras.tree.flatten(inputs)
    if len(leaves) == 1 and keras.backend.is_float_dtype(leaves[0].dtype):
        rank = len(leaves[0].shape)
        if tap.path == taps.MIRRORED_GRADIENT and rank != 4:
            raise ValueError(
                f"The tap '{tap}' mirrors images (B, H, W, C); the model takes "
                f"{tuple(leaves[0].shape)}."
            )
        return leaves[0]
    raise ValueError(
        f"The tap '{tap}' is a gradient by one input of real numbers; the model takes "
        f"{[(tuple(x.shape), str(x.dtype)) for x in leaves]}. Tap a layer instead."
    )
