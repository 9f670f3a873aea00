"""Checks of what a cache is asked for, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from keras_distill import taps as tapping
from keras_distill.data.views import Views
from keras_distill.distillers import shapes
from keras_distill.losses.schedules import at_step
from keras_distill.taps import Tap, heads
from keras_distill.teachers.cache.contents import Contents
from keras_distill.teachers.teacher import Teacher


def can_be_kept(taps: Sequence[Tap]) -> None:
    """Refuse gradients, which depend on labels and, as hidden layers, on nothing kept."""
    slopes = [str(tap) for tap in taps if tap.is_gradient]
    if slopes or not taps:
        raise ValueError(
            "A cache keeps logits and layers, one or more; got "
            f"{slopes or 'no taps'}. Give the teacher itself to a distiller whose terms "
            "tap gradients."
        )


def has_temperature(top_k, temperature, several: bool) -> None:
    """Check that a prediction that depends on a temperature is given one."""
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"top_k is a number of classes, 1 or more; got {top_k!r}.")
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature must be above 0; got {temperature!r}.")
    if temperature is None and (top_k is not None or several):
        why = "top_k keeps" if top_k is not None else "an ensemble gives"
        raise ValueError(
            f"{why} predictions at one temperature: give the temperature of the loss, as "
            "in temperature=4.0."
        )


def are_views(views) -> None:
    """Refuse augmentation that can't be replayed."""
    if views is not None and not isinstance(views, Views):
        raise TypeError(
            f"views is a kd.data.Views, which can be replayed; got {type(views).__name__}."
            " Random augmentation would show the student other images than the teacher."
        )


def gives_logits(teacher: Teacher, inputs) -> None:
    """Refuse a teacher that ends in probabilities."""
    for model in teacher.models:
        _, last_layer = tapping.outline(model, inputs)
        heads.gives_logits(model, last_layer, "teacher")


def are_fixed(found: dict) -> None:
    """Check that each tap has one shape for all samples."""
    for tap, shape in found.items():
        if None in shape:
            raise ValueError(
                f"A cache keeps as much of each sample, but the tap '{tap}' has the shape "
                f"{shape}. Give inputs of one size: pad or resize them."
            )


def knows(contents: Contents, terms: Sequence) -> None:
    """Check that a cache has what terms ask for, at their temperatures."""
    missing = [
        str(tap)
        for tap in shapes.taps_of("teacher", terms)
        if str(tap) not in contents.shapes
    ]
    if missing:
        raise ValueError(
            f"The cache keeps {sorted(contents.shapes)}, but terms ask for {missing}. "
            "Make one with taps=(...) that names them."
        )
    kept = contents.made_of["temperature"]
    if kept == "any":
        return
    for term in terms:
        asked = _temperature(term)
        if asked is not None and asked != kept:
            raise ValueError(
                f"The cache keeps predictions at the temperature {kept:g}; the term "
                f"'{term.name}' compares at {asked}. Give the loss temperature="
                f"{kept:g}, or make a cache at its temperature, or one without top_k."
            )


def _temperature(term):
    """Give at which temperature a term compares predictions, None if it does not."""
    of_logits = "teacher_logits" in term.loss.needs
    if not of_logits and not any(tap.is_logits for tap in term.teacher):
        return None
    if "temperature" not in term.loss.scheduled or of_logits:
        return 1.0
    given = term.loss.temperature
    start = at_step(given, 0)
    return float(start) if start is given else "a schedule's"


def are_counts(**numbers: int) -> None:
    """Check that numbers of rows are 1 or more."""
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} is a whole number, 1 or more; got {number!r}.")
