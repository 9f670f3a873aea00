"""The first batch before training: what student and teacher return for it."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_distill import taps
from keras_distill.adapters import Match
from keras_distill.data.preparation import of_member
from keras_distill.data.selection import (
    names_of_outputs,
    outputs_by_name,
    part_of_output,
)
from keras_distill.distillers import tasks
from keras_distill.distillers.masked_keys import warn_of_masked_keys
from keras_distill.distillers.probabilities import POSSIBLE, SURE, Probabilities
from keras_distill.distillers.trust import warn_of_poor_teacher
from keras_distill.strategies.replicas import worker
from keras_distill.taps import Tap
from keras_distill.taps.tracing import trace
from keras_distill.teachers.base_teacher import LABELS, VALUES, check_keeps_state
from keras_distill.teachers.self_teacher import SelfTeacher
from keras_distill.training.data_checks import (
    of_probabilities,
    takes_means,
    takes_probabilities,
)
from keras_distill.training.label_shapes import check_label_shape


class Look(NamedTuple):
    """What both models return for a batch, in inference form.

    Args:
        inputs: what the student takes.
        outputs: the student's, None if no step needs them.
        features: the student's tensors by tap.
        knowledge: the teacher's by tap; a list of those of each member for an average.
    """

    inputs: Any
    outputs: Any
    features: dict
    knowledge: dict


def look(distiller, x) -> Look:
    """Run student and teacher on a batch; no weight, state or seed changes."""
    entry, teacher = distiller.entry, distiller.teacher
    x = entry.enter(x, training=False)
    inputs = entry.student_part(x, training=False)
    wanted = [tap for tap in distiller.student_taps if not tap.is_gradient]
    of_teacher = [tap for tap in distiller.teacher_taps if not tap.is_gradient]
    teaches_itself = isinstance(teacher, SelfTeacher)
    if teaches_itself:
        wanted = list(dict.fromkeys([*wanted, *of_teacher]))
    outputs, knowledge = None, {}
    with keras.StatelessScope() as scope:
        if distiller.predicts_in_step():
            run = taps.forward(distiller.student, inputs, wanted, training=False)
            outputs, features = run
        else:
            features = taps.up_to(distiller.student, inputs, wanted)
        if teaches_itself:
            knowledge = features
        elif teacher.checks_first_batch and of_teacher:
            knowledge = teacher(entry.teacher_part(x), of_teacher)
            check_keeps_state(teacher, scope)
    return Look(inputs, outputs, features, knowledge)


def check_first_batch(distiller, x, y, sample_weight) -> None:
    """Check the values of the first batch, before the first step.

    Both models are run on it once, eagerly and in inference form. Nothing is checked
    where several workers train, which would have to do so in step, or inputs are not
    finite.

    Raises:
        ValueError: a tap is not finite, a loss that compares logits gets probabilities,
            or the compiled loss takes probabilities of a student of logits, or the
            reverse.
    """
    if worker()[1] > 1:
        check_state_of_teacher(distiller, x)
        return
    if any(map(_is_not_finite, keras.tree.flatten(x))):
        return
    seen, probabilities = look(distiller, x), Probabilities()
    for bound in distiller.terms.values():
        for tap in bound.term.student:
            if tap in seen.features:
                sides = "student", distiller.student, tap, seen.features[tap]
                _check_tap(probabilities, bound, *sides, seen.inputs)
        for tap in bound.term.teacher:
            tensors = seen.knowledge.get(tap)
            tensors = tensors if isinstance(tensors, list) else [tensors]
            for member, tensor in enumerate(tensors):
                if tensor is not None:
                    model, inner = _of_member(distiller.teacher, tap, member)
                    given = of_member(distiller.entry.taught(x), member)
                    sides = "teacher", model, inner, tensor, given
                    _check_tap(probabilities, bound, *sides)
        _check_by_loss(bound.term, seen)
        _check_left_out_classes(distiller, bound, seen)
        warn_of_masked_keys(bound, seen.features, seen.knowledge)
    if seen.outputs is not None and not distiller.has_own_loss():
        _check_outputs(probabilities, distiller, seen, y)
    if distiller.teacher.checks_first_batch:
        warn_of_poor_teacher(distiller, seen, y, sample_weight)


def check_state_of_teacher(distiller, x) -> None:
    """Check that a teacher assigns to no state of its own as it runs, on shapes alone."""
    entry, teacher = distiller.entry, distiller.teacher
    wanted = [tap for tap in distiller.teacher_taps if not tap.is_gradient]
    if not teacher.checks_first_batch or not wanted:
        return

    def run(x):
        with keras.StatelessScope() as scope:
            knowledge = teacher(entry.teacher_part(entry.enter(x, False)), wanted)
        check_keeps_state(teacher, scope)
        return knowledge[wanted[0]]

    trace(run, x)


def _check_by_loss(term, seen: Look) -> None:
    """Check by the loss the tensors of both sides that are known and not adapted."""
    student = [seen.features.get(tap) for tap in term.student]
    teacher = [seen.knowledge.get(tap) for tap in term.teacher]
    layers = *term.adapters, *term.teacher_adapters
    if any(isinstance(layer, keras.Layer) for layer in layers):
        return
    if all(ops.is_tensor(x) for x in (*student, *teacher)):
        try:
            term.loss.check_first_batch(student, teacher)
        except ValueError as error:
            raise ValueError(f"Term '{term.name}': {error}") from error


def _check_left_out_classes(distiller, bound, seen: Look) -> None:
    """Check that no logits of -inf on one side alone make a term infinite."""
    term, loss = bound.term, bound.term.loss
    if loss.match is not Match.CLASSES or not loss.compares_teacher or loss.taps > 1:
        return
    (tap, *_), (known, *_) = term.student, term.teacher
    student, teacher = seen.features.get(tap), seen.knowledge.get(known)
    adapted = any(isinstance(adapter, keras.Layer) for adapter in term.adapters)
    if student is None or teacher is None or adapted or not known.is_output:
        return
    teacher = distiller.teacher.logits(teacher, 1.0, bound.predicts)
    left_out = [_left_out(x, term.shared_classes) for x in (student, teacher)]
    if not any(map(np.any, left_out)) or set(loss.needs) - {"mask", "teacher_mask"}:
        return
    student, teacher = (x[..., : term.shared_classes] for x in (student, teacher))
    if student.shape != teacher.shape or bool(
        ops.all(ops.isfinite(loss(teacher, student)))
    ):
        return
    side = "student" if (left_out[0] & ~left_out[1]).any() else "teacher"
    raise ValueError(
        f"Term '{term.name}' is not finite on the first batch: a class has a logit of -inf "
        f"in the {side}'s '{tap if side == 'student' else known}' alone, where a divergence "
        "is infinite. Set the same classes to -inf in student and teacher, or use -1e4 in "
        "place of -inf."
    )


def _left_out(logits, classes: int | None):
    """Return which logits are -inf, as NumPy booleans."""
    wide = ops.cast(logits, "float32")[..., :classes]
    return ops.convert_to_numpy(ops.equal(wide, -np.inf))


def _of_member(teacher, tap: Tap, member: int) -> tuple:
    """Return the model that a tensor is of, None if it is of no model, and its tap."""
    if not teacher.models:
        return None, tap
    index, inner = tap.of_member()
    if len(teacher.models) == 1:
        return teacher.models[0], tap
    return teacher.models[member if index is None else index], inner


def _check_tap(
    probabilities: Probabilities, bound, side: str, model, tap: Tap, tensor, inputs
) -> None:
    term = bound.term
    where = f"The {side}'s '{tap}'" + (f" of '{model.name}'" if model else "")
    if _is_not_finite(tensor):
        raise ValueError(
            f"{where}, which term '{term.name}' compares, is not finite on the first "
            "batch (NaN or infinite). Check the model's weights, the moving statistics of "
            "its batch normalization, and the data."
        )
    adapted = side == "student" and any(
        isinstance(adapter, keras.Layer) for adapter in term.adapters
    )
    if term.loss.match is not Match.CLASSES or bound.predicts == VALUES or adapted:
        return
    if tap.side == "scores" and "scores" in term.loss.masked_scores:
        return
    found = probabilities.judge(bound.predicts, side, model, tap, tensor, inputs)
    what = "a sigmoid" if bound.predicts == LABELS else "a softmax"
    fix = (
        f"term '{term.name}' compares logits: {what} of probabilities teaches next to "
        "nothing. Tap the layer before the last activation, or pass "
        "kd.as_logits(model), which ends there."
    )
    if found == SURE:
        raise ValueError(f"{where} are probabilities on the first batch, but {fix}")
    if found == POSSIBLE:
        probabilities.warn(model, tap, f"{where} may be probabilities", fix)


def _is_not_finite(tensor) -> bool:
    """Whether there is NaN or +inf; -inf is the logit of a class that is left out."""
    if not ops.is_tensor(tensor) or not keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(tensor.dtype)
    ):
        return False
    return not bool(ops.all(ops.cast(tensor, "float32") < np.inf))


def _check_outputs(probabilities: Probabilities, distiller, seen: Look, y) -> None:
    """Check that each compiled loss takes the labels and what the student returns."""
    for name, tensor in outputs_by_name(seen.outputs):
        tap = Tap.output(name)
        names = names_of_outputs(distiller.student)
        loss = part_of_output(distiller.loss, tap, names)
        check_label_shape(part_of_output(y, tap, names), loss, tuple(tensor.shape))
        takes = None if loss is None else takes_probabilities(loss)
        place = name and f" at {name!r}"
        if loss is not None and takes_means(loss):
            _check_positive(tensor, place)
        if takes is None:
            continue
        compiled = f"the loss {getattr(loss, 'name', loss)!r} takes"
        given = "student", distiller.student, tap, tensor, seen.inputs
        if takes and probabilities.are_logits(*given[1:]):
            raise ValueError(of_probabilities(loss, place))
        if takes:
            continue
        found = probabilities.judge(tasks.task_of_loss(loss, tensor.shape[-1]), *given)
        fix = (
            f"{compiled} logits (from_logits=True). Pass kd.as_logits(student), or a loss "
            "with from_logits=False."
        )
        if found == SURE:
            raise ValueError(f"The student returns probabilities{place}, but {fix}")
        if found == POSSIBLE:
            what = f"The student's outputs{place} may be probabilities"
            probabilities.warn(distiller.student, tap, what, fix)


def _check_positive(tensor, place: str) -> None:
    if bool(ops.any(tensor < 0.0)):
        raise ValueError(
            f"The student returns negative values{place}, but the loss Poisson takes their "
            "logarithm: it compares counts with positive means. End the student in "
            "activation='softplus' or 'exponential'."
        )
