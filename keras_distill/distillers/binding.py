"""Binding: both models are checked, and each term gets the adapters that its taps need."""

import dataclasses
import warnings
from collections.abc import Mapping

from keras_distill import taps
from keras_distill.data.preparation import inputs_of_models, of_member
from keras_distill.data.selection import names_of_outputs
from keras_distill.distillers import adapter_checks, context, mask_checks, tasks
from keras_distill.distillers.bound_term import BoundTerm
from keras_distill.distillers.task_term import TaskTerm
from keras_distill.taps import Tap, heads, tracing
from keras_distill.taps.layer_paths import check_short_forms, layers_of
from keras_distill.taps.layouts import check_channels_last
from keras_distill.taps.lengths import Lengths, lengths_of
from keras_distill.teachers.self_teacher import SelfTeacher


@dataclasses.dataclass(frozen=True)
class BoundLengths:
    """What the lengths of both sides' tapped tensors come from."""

    student: Lengths = dataclasses.field(default_factory=Lengths)
    teacher: Lengths = dataclasses.field(default_factory=Lengths)


# Times a teacher's parameters, above which a student is worth a warning.
_LARGER = 2


def bind_if_declared(distiller) -> None:
    """Bind a distiller whose models declare all sizes; of others, check the taps.

    A model may not take every size, so the others are bound to a batch.
    """
    models = distiller.teacher.models
    if models and all(map(tracing.declares_sizes, (distiller.student, *models))):
        bind(distiller, tracing.input_of(distiller.student), inputs_of_models(models))
        return
    _check_layers(distiller.student, distiller.student_taps)
    for index, model in enumerate(models):
        _check_layers(model, _taps_of_model(distiller, index))


def bind_to_batch(distiller, x) -> None:
    """Bind a distiller to the inputs of a batch."""
    entry = distiller.entry

    def enter(x):
        x = entry.enter(x, training=False)
        return entry.student_part(x, training=False), entry.teacher_part(x)

    bind(distiller, *tracing.trace(enter, x))


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
    is_dict = isinstance(outputs, Mapping) and not names_of_outputs(student)
    distiller.unnamed_outputs = sorted(outputs) if is_dict else []
    distiller.ends_in_logits = heads.ends_in_logits(last_layer)
    terms = [bound.term for bound in distiller.terms.values()]
    check_short_forms(student, distiller.student_taps, last_layer)
    check_channels_last(student, student_specs, distiller.student_taps)
    for index, model in enumerate(teacher.models):
        specs = of_member(teacher_specs, index)
        _check_teacher(model, specs, _taps_of_model(distiller, index))
    for term in terms:
        for name in term.loss.needs:
            context.PROVIDERS[name].prepare(
                term, student, teacher, student_specs, teacher_specs
            )
    wanted = list(distiller.student_taps)
    if hasattr(outputs, "shape") and Tap.output() not in wanted:
        wanted.append(Tap.output())
    distiller.lengths = BoundLengths(
        lengths_of(
            lambda specs: taps.shapes_of(student, specs, wanted), student_specs, student
        ),
        lengths_of(
            lambda specs: teacher.shapes(specs, distiller.teacher_taps),
            teacher_specs,
            _declaring_model(student, teacher),
        ),
    )
    lengths = distiller.lengths
    if not teacher.models:
        _vary_alike(terms, lengths)
    mask_checks.check_padding_masks(terms, lengths.student, lengths.teacher)
    _bind_lengths(distiller, distiller.lengths)
    distiller.is_bound = True
    _warn_of_size(student, teacher)


def _declaring_model(student, teacher):
    """Return the model whose inputs show which sizes of the teacher's tensors vary."""
    if isinstance(teacher, SelfTeacher):
        return student
    return next(iter(teacher.models), None)


def _vary_alike(terms, lengths: BoundLengths) -> None:
    """Note as varying the sizes of a teacher without models that vary in the student."""
    student, teacher = lengths.student, lengths.teacher
    for term in terms:
        sides = map(str, term.student), map(str, term.teacher)
        for tap, known in zip(*sides, strict=False):
            pairs = zip(student.sizes[tap], teacher.sizes[known], strict=False)
            for axis, (one, other) in enumerate(list(pairs)):
                if other is None:
                    teacher.sizes[known][axis] = one
                elif one == other and student.shapes[tap][axis] is None:
                    teacher.shapes[known][axis] = None


def _warn_of_size(student, teacher) -> None:
    """Warn if a student is much larger than its teacher: the two may be exchanged."""
    if not teacher.checks_first_batch or not teacher.models:
        return
    own, known = student.count_params(), sum(x.count_params() for x in teacher.models)
    if own > _LARGER * known:
        names = ", ".join(f"'{model.name}'" for model in teacher.models)
        warnings.warn(
            f"The student '{student.name}' has {own:,} parameters, and is much larger "
            f"than its teacher {names} with {known:,}. If they are exchanged, note that "
            "kd.Distiller takes the student first; Keras's own distiller takes the "
            "teacher first.",
            stacklevel=2,
        )


def bind_shapes(distiller, shapes: dict) -> None:
    """Build the terms' adapters from shapes that were saved.

    Args:
        distiller: a `Distiller`.
        shapes: of the taps of `"student"` and `"teacher"`, by the tap's text, with None
            for sizes that vary.
    """
    sides = (Lengths(shapes[side], shapes[side]) for side in ("student", "teacher"))
    _bind_lengths(distiller, BoundLengths(*sides))


def _bind_lengths(distiller, lengths: BoundLengths) -> None:
    """Build the terms' adapters; once built, another teacher must fit them."""
    student, teacher = lengths.student, lengths.teacher
    if distiller.shapes is not None:
        models = distiller.teacher.models
        known = models and all(map(tracing.declares_sizes, models))
        built = distiller.shapes["teacher"]
        adapter_checks.check_same_shapes(built, teacher.shapes, sizes=bool(known))
        return
    settle(distiller, lengths)
    for bound in distiller.terms.values():
        _bind_term(bound, lengths)
    wanted = map(str, distiller.student_taps)
    distiller.shapes = {
        "student": {tap: student.shapes[tap] for tap in wanted},
        "teacher": teacher.shapes,
    }
    distiller.built = True


def _bind_term(bound, lengths: BoundLengths) -> None:
    student, teacher = lengths.student, lengths.teacher
    of_student, of_teacher = (
        [str(tap) for tap in side] for side in (bound.term.student, bound.term.teacher)
    )
    bound.bind(
        [student.shapes[tap] for tap in of_student],
        [teacher.shapes[tap] for tap in of_teacher],
        [student.sizes[tap] for tap in of_student],
        [teacher.sizes[tap] for tap in of_teacher],
    )


def known_lengths(distiller) -> BoundLengths | None:
    """Return the lengths that a distiller is bound to, None if it is not."""
    if distiller.shapes is None or distiller.lengths.student.shapes:
        return None if distiller.shapes is None else distiller.lengths
    sides = (distiller.shapes[side] for side in ("student", "teacher"))
    return BoundLengths(*(Lengths(shapes, shapes) for shapes in sides))


def settle(
    distiller, lengths: BoundLengths | None, otherwise: str | dict | None = None
) -> None:
    """Exchange default terms for those that fit the task, and note each term's task.

    Args:
        distiller: a `Distiller`.
        lengths: with the shapes of its taps, or None if they are not known yet.
        otherwise: the task where no loss shows it, or those by the terms' names.
            Default: by the loss that the teacher was compiled with, else by the number
            of outputs.
    """
    by_name = otherwise if isinstance(otherwise, dict) else {}
    otherwise = None if isinstance(otherwise, dict) else otherwise
    shapes = {} if lengths is None else lengths.student.shapes
    bounds, changed = [], False
    for bound in distiller.terms.values():
        task = tasks.task_of_term(distiller, bound.term, shapes)
        by_width = tasks.task_of_width(tasks.width_of(bound.term, shapes))
        loaded = None if distiller.compiled else getattr(bound.term, "task", None)
        of_teacher = getattr(distiller.teacher, "predicts", None)
        shown = task or by_name.get(bound.name) or otherwise
        if isinstance(bound.term, TaskTerm):
            of_teacher = of_teacher or tasks.task_of_teacher(
                distiller, bound.term, shapes
            )
        likely = shown or loaded or of_teacher or by_width
        fitting = bound.term.for_task(likely)
        if fitting is not bound.term:
            changed, bound = True, BoundTerm(fitting)
            if distiller.shapes is not None:
                _bind_term(bound, lengths)
        bound.task = task
        bound.predicts = fitting.loss.predicts or likely
        bound.is_guess = isinstance(fitting, TaskTerm) and not (
            shown or loaded or of_teacher
        )
        bounds.append(bound)
    if changed:
        distiller.replace_terms(bounds)


def _taps_of_model(distiller, index: int) -> list[Tap]:
    """Return the taps of one of the teacher's models."""
    inner = [tap.of_member() for tap in distiller.teacher_taps]
    return [tap for member, tap in inner if member in (None, index)]


def _check_layers(model, wanted) -> None:
    if model.built:
        layers_of(model, [tap for tap in wanted if not tap.is_gradient])


def _check_teacher(model, specs, wanted) -> None:
    check_channels_last(model, specs, wanted)
    if any(tap.is_short_form for tap in wanted):
        _, last_layer = taps.outline(model, specs)
        check_short_forms(model, wanted, last_layer)
