"""Suggestions of terms for a pair of models."""

import re

import keras

from keras_distill import losses
from keras_distill.adapters import TokensToMap
from keras_distill.analysis.term_lines import line
from keras_distill.data.selection import (
    names_of_outputs,
    outputs_by_name,
    part_of_output,
)
from keras_distill.distillers import Term
from keras_distill.distillers.task_term import loss_for
from keras_distill.distillers.tasks import task_of_loss, task_of_width
from keras_distill.losses.schedules import BALANCED
from keras_distill.taps import Tap, outline
from keras_distill.taps.suggestions import TapPair, suggest_taps
from keras_distill.taps.tracing import input_of


class SuggestedTerms(tuple):
    """Terms for a pair of models; printed, they are lines to paste into `terms=[...]`.

    Example:
        >>> terms = kd.suggest_terms(student, teacher)
        >>> distiller = kd.Distiller(student, teacher, terms=terms)
    """

    def __str__(self) -> str:
        """Return a line per term."""
        return "\n".join(map(line, self))

    __repr__ = __str__


def suggest_terms(
    student: keras.Model,
    teacher: keras.Model,
    *,
    loss=None,
    student_input=None,
    teacher_input=None,
) -> SuggestedTerms:
    """Suggest what a student should learn from a teacher: predictions and features.

    The first term compares predictions, by the loss that fits the task: `SoftTarget` of
    classes, `BinarySoftTarget` of independent labels, `OutputRegression` of values; of
    several outputs, each that has a loss has a term of its own. For each pair of layers
    at the end of a stage that `kd.suggest_taps` finds, one term compares features:
    attention maps of images, hints of the blocks of a sequence, and the distances between
    samples of vectors. All weights are `"balanced"`: as `fit` begins, each is set so that
    its term pulls as hard at the student as the labels.

    Args:
        student: any Keras model, also nested or subclassed.
        teacher: the same.
        loss: the student is to be compiled with, which shows the task; for several
            outputs a list or dict, as in `compile`. Default: the one that the teacher
            was compiled with; without it, classes, or a label for an output of one
            number.
        student_input: a batch, or specs, for a model that does not declare its inputs.
        teacher_input: the same for the teacher.

    Returns:
        A tuple of `kd.Term`; print it for lines to paste.

    Raises:
        ValueError: a model does not declare its inputs, or computes with channels first;
            the models have other outputs than each other, or several without a loss.

    Example:
        >>> print(kd.suggest_terms(student, teacher))
        kd.Term(kd.losses.SoftTarget(), weight="balanced"),
        kd.Term(kd.losses.AttentionMap(), "stack1", "stack1", name="stack1", ...
    """
    inputs = {"student_input": student_input, "teacher_input": teacher_input}
    try:
        pairs = suggest_taps(student, teacher, **inputs)
    except ValueError as error:
        if "can be paired" not in str(error):
            raise
        pairs = ()
    terms = _prediction_terms(student, teacher, loss, inputs)
    terms += [_feature_term(pair) for pair in pairs if pair.stage_end]
    return SuggestedTerms(terms)


def _prediction_terms(student, teacher, loss, inputs: dict) -> list[Term]:
    """Return a term for each output that has a loss, for the only one in any case."""
    if loss is None and isinstance(teacher, keras.Model) and teacher.compiled:
        loss = teacher.loss
    widths = _widths_of_outputs(student, teacher, inputs)
    names, terms = names_of_outputs(student), []
    for tap, width in widths.items():
        of_output = part_of_output(loss, tap, names)
        if of_output is None and len(widths) > 1:
            continue
        task = None if of_output is None else task_of_loss(of_output, width)
        compares = loss_for(task or task_of_width(width))
        suffix = re.sub(
            r"[^\w-]", "_", f"_{tap.output_name}" if tap.output_name else ""
        )
        name = compares.name + suffix
        terms.append(Term(compares, tap, tap, weight=BALANCED, name=name))
    if not terms:
        raise ValueError(
            f"'{student.name}' has the outputs {[tap.output_name for tap in widths]}, and "
            "no losses show what they predict. Pass those that the student is to be "
            "compiled with, as in loss={'box': 'mse'}, or compile the teacher."
        )
    return terms


def _widths_of_outputs(student, teacher, inputs: dict) -> dict[Tap, int]:
    """Return the number of outputs at each tap of an output that both models have."""
    shapes = [
        _shapes_of_outputs(student, inputs["student_input"]),
        _shapes_of_outputs(teacher, inputs["teacher_input"]),
    ]
    if set(shapes[0]) != set(shapes[1]):
        own, other = (
            "one" if set(x) == {""} else f"the outputs {list(x)}" for x in shapes
        )
        raise ValueError(
            f"Expected models of the same outputs; '{student.name}' has {own}, "
            f"'{teacher.name}' has {other}. Pair them yourself, as in "
            "kd.Term(loss, kd.Tap.output('box'), kd.Tap.output('head'))."
        )
    named = names_of_outputs(student)
    by_name = len(named) == len(shapes[0]) and named == names_of_outputs(teacher)
    taps = {}
    for key, shape in shapes[0].items():
        name = named[int(key)] if by_name and key.isdecimal() else key
        taps[Tap.output(name or None)] = shape[-1] if len(shape) > 1 else 1
    return taps


def _shapes_of_outputs(model, inputs) -> dict[str, tuple]:
    """Return the shape of each output by its key or index, by "" that of the only one."""
    specs, _ = outline(model, input_of(model) if inputs is None else inputs)
    return {name: tuple(x.shape) for name, x in outputs_by_name(specs)}


def _feature_term(pair: TapPair) -> Term:
    adapters = {side: TokensToMap(size) for side, size in pair.map_sizes().items()}
    loss, taps = getattr(losses, pair.loss)(), (pair.student, pair.teacher)
    return Term(loss, *taps, weight=BALANCED, name=pair.name, **adapters)
