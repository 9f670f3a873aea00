"""Binding: both models are checked, and each term gets the adapters that its taps need."""

from keras_distill import taps
from keras_distill.adapters import Match
from keras_distill.data.selection import select
from keras_distill.distillers import context, term_checks
from keras_distill.taps import heads, tracing
from keras_distill.taps.layer_paths import check_short_forms
from keras_distill.taps.layouts import check_channels_last


def bind_if_declared(distiller) -> None:
    """Bind a distiller whose student and teacher declare their inputs."""
    models = distiller.teacher.models
    student_specs = tracing.input_of(distiller.student)
    teacher_specs = tracing.input_of(models[0]) if models else None
    if student_specs is not None and teacher_specs is not None:
        bind(distiller, student_specs, teacher_specs)


def bind_to_batch(distiller, x) -> None:
    """Bind a distiller to the inputs of a batch."""
    bind(
        distiller,
        tracing.trace(lambda x: select(x, distiller.student_inputs), x),
        tracing.trace(lambda x: select(x, distiller.teacher_inputs), x),
    )


def bind(distiller, student_specs, teacher_specs) -> None:
    """Check both models and find the shape of each tap; then create the adapters.

    Args:
        distiller: a `Distiller` with a teacher.
        student_specs: of what the student takes.
        teacher_specs: of what the teacher takes.

    Raises:
        ValueError: as in the constructor of `Distiller`.
    """
    student, teacher = distiller.student, distiller.teacher
    outputs, last_layer = taps.outline(student, student_specs)
    distiller.classes = getattr(outputs, "shape", (None,))[-1]
    distiller.ends_in_probabilities = heads.ends_in_probabilities(last_layer)
    terms = [bound.term for bound in distiller.terms.values()]
    compares_classes = any(term.loss.match is Match.CLASSES for term in terms)
    check_short_forms(student, distiller.student_taps, last_layer)
    if compares_classes:
        heads.check_last_layer(student, last_layer, "student")
    check_channels_last(student, student_specs, distiller.student_taps)
    for index, model in enumerate(teacher.models):
        inner = [tap.of_member() for tap in distiller.teacher_taps]
        taps_of_model = [tap for member, tap in inner if member in (None, index)]
        _check_teacher(model, teacher_specs, taps_of_model, compares_classes)
    for term in terms:
        for name in term.loss.needs:
            context.PROVIDERS[name].prepare(
                term, student, teacher, student_specs, teacher_specs
            )
    shapes = {
        "student": taps.shapes_of(student, student_specs, distiller.student_taps),
        "teacher": teacher.shapes(teacher_specs, distiller.teacher_taps),
    }
    bind_shapes(distiller, shapes)


def bind_shapes(distiller, shapes: dict) -> None:
    """Build the terms' adapters; once built, another teacher must fit them.

    Args:
        distiller: a `Distiller`.
        shapes: of the taps of `"student"` and `"teacher"`, by the tap's text.
    """
    if distiller.shapes is not None:
        term_checks.check_same_shapes(distiller.shapes["teacher"], shapes["teacher"])
        return
    for bound in distiller.terms.values():
        bound.bind(
            [shapes["student"][str(tap)] for tap in bound.term.student],
            [shapes["teacher"][str(tap)] for tap in bound.term.teacher],
        )
    distiller.shapes = shapes
    distiller.built = True


def _check_teacher(model, specs, wanted, compares_classes: bool) -> None:
    check_channels_last(model, specs, wanted)
    if compares_classes or any(tap.is_short_form for tap in wanted):
        _, last_layer = taps.outline(model, specs)
        check_short_forms(model, wanted, last_layer)
        if compares_classes:
            heads.check_last_layer(model, last_layer, "teacher")
