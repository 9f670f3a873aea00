"""The first batch before training: what student and teacher return for it."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_distill import taps
from keras_distill.adapters import Match
from keras_distill.data.preparation import of_member
from keras_distill.data.selection import names_of_outputs, part_of_output
from keras_distill.distillers import tasks
from keras_distill.distillers.trust import warn_of_poor_teacher
from keras_distill.strategies.replicas import worker
from keras_distill.taps import Tap, heads
from keras_distill.taps.outlines import source_of
from keras_distill.teachers.base_teacher import (
    CLASSES,
    LABELS,
    VALUES,
    check_keeps_state,
)
from keras_distill.teachers.self_teacher import SelfTeacher
from keras_distill.training.data_checks import of_logits, takes_probabilities

# Of values in 0..1, as many as logits do not all have by chance.
_ENOUGH = 16


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
    if worker()[1] > 1 or any(map(_is_not_finite, keras.tree.flatten(x))):
        return
    seen = look(distiller, x)
    for bound in distiller.terms.values():
        for tap in bound.term.student:
            if tap in seen.features:
                sides = "student", distiller.student, tap, seen.features[tap]
                _check_tap(bound, *sides, seen.inputs)
        for tap in bound.term.teacher:
            tensors = seen.knowledge.get(tap)
            tensors = tensors if isinstance(tensors, list) else [tensors]
            for member, tensor in enumerate(tensors):
                if tensor is not None:
                    model, inner = _of_member(distiller.teacher, tap, member)
                    given = of_member(distiller.entry.taught(x), member)
                    _check_tap(bound, "teacher", model, inner, tensor, given)
    if seen.outputs is not None and not distiller.has_own_loss():
        _check_outputs(distiller, seen)
    if distiller.teacher.checks_first_batch:
        warn_of_poor_teacher(distiller, seen, y, sample_weight)


def _of_member(teacher, tap: Tap, member: int) -> tuple:
    """Return the model that a tensor is of, None if it is of no model, and its tap."""
    if not teacher.models:
        return None, tap
    index, inner = tap.of_member()
    if len(teacher.models) == 1:
        return teacher.models[0], tap
    return teacher.models[member if index is None else index], inner


def _check_tap(bound, side: str, model, tap: Tap, tensor, inputs) -> None:
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
    if _are_probabilities(bound.predicts, side, model, tap, tensor, inputs):
        what = "a sigmoid" if bound.predicts == LABELS else "a softmax"
        raise ValueError(
            f"{where} are probabilities on the first batch, but term '{term.name}' "
            f"compares logits: {what} of {what} teaches next to nothing. Tap the layer "
            "before the last activation, or pass kd.as_logits(model), which ends there."
        )


def _is_not_finite(tensor) -> bool:
    """Whether there is NaN or +inf; -inf is the logit of a class that is left out."""
    if not ops.is_tensor(tensor) or not keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(tensor.dtype)
    ):
        return False
    return not bool(ops.all(ops.cast(tensor, "float32") < np.inf))


def _are_probabilities(task: str, side: str, model, tap: Tap, tensor, inputs) -> bool:
    """Whether a tensor that is compared as logits has the values of probabilities."""
    if task == CLASSES:
        return heads.sum_to_one(tensor)
    if not heads.in_unit_interval(tensor):
        return False
    if model is not None and heads.is_sigmoid(source_of(model, inputs, tap)):
        return True
    # A trained teacher's logits are not all between 0 and 1; an untrained student's may be.
    if side == "student" or np.prod(tensor.shape) < _ENOUGH:
        return False
    above = ops.cast(tensor, "float32") > 0.5
    return bool(ops.any(above)) and not bool(ops.all(above))


def _check_outputs(distiller, seen: Look) -> None:
    """Check that each compiled loss takes what the student returns."""
    for name, tensor in _named(distiller, seen.outputs):
        tap = Tap.output(name)
        names = names_of_outputs(distiller.student)
        loss = part_of_output(distiller.loss, tap, names)
        takes = None if loss is None else takes_probabilities(loss)
        if takes is None:
            continue
        task = tasks.task_of_loss(loss, tensor.shape[-1])
        if takes and _has_logits(tensor):
            raise ValueError(
                f"The student returns logits{name and f' at {name!r}'}, but the loss "
                f"{getattr(loss, 'name', loss)!r} takes probabilities "
                f"(from_logits=False). Use, for example, {of_logits(loss)}."
            )
        student = distiller.student
        if not takes and _are_probabilities(
            task, "student", student, tap, tensor, seen.inputs
        ):
            raise ValueError(
                f"The student returns probabilities{name and f' at {name!r}'}, but the "
                f"loss {getattr(loss, 'name', loss)!r} takes logits (from_logits=True). "
                "Pass kd.as_logits(student), or a loss with from_logits=False."
            )


def _has_logits(tensor) -> bool:
    """Whether some values are no probabilities."""
    tensor = ops.cast(tensor, "float32")
    return bool(ops.any(tensor < 0.0)) or bool(ops.any(tensor > 1.01))


def _named(distiller, outputs) -> list:
    if isinstance(outputs, dict):
        return [(name, x) for name, x in outputs.items() if hasattr(x, "shape")]
    if isinstance(outputs, (list, tuple)):
        return [(str(i), x) for i, x in enumerate(outputs) if hasattr(x, "shape")]
    return [("", outputs)]
