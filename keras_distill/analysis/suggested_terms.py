"""Suggestions of terms for a pair of models."""

import keras

from keras_distill import losses
from keras_distill.adapters import TokensToMap
from keras_distill.analysis.term_lines import line
from keras_distill.distillers import Term
from keras_distill.distillers.task_term import loss_for
from keras_distill.distillers.tasks import task_of_loss, task_of_width
from keras_distill.losses.schedules import BALANCED
from keras_distill.taps.suggestions import TapPair, suggest_taps


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
    classes, `BinarySoftTarget` of independent labels, `OutputRegression` of values. For
    each pair of layers at the end of a stage that `kd.suggest_taps` finds, one term
    compares features: attention maps of images, hints of the blocks of a sequence, and
    the distances between samples of vectors. All weights are `"balanced"`: as `fit`
    begins, each is set so that its term pulls as hard at the student as the labels.

    Args:
        student: any Keras model, also nested or subclassed.
        teacher: the same.
        loss: the student is to be compiled with, which shows the task. Default: the one
            that the teacher was compiled with; without it, classes, or independent labels
            for one output.
        student_input: a batch, or specs, for a model that does not declare its inputs.
        teacher_input: the same for the teacher.

    Returns:
        A tuple of `kd.Term`; print it for lines to paste.

    Raises:
        ValueError: a model does not declare its inputs.

    Example:
        >>> print(kd.suggest_terms(student, teacher))
        kd.Term(kd.losses.SoftTarget(), weight="balanced"),
        kd.Term(kd.losses.AttentionMap(), "stack1", "stack1", name="stack1", ...
    """
    terms = [Term(loss_for(_task(student, teacher, loss)), weight=BALANCED)]
    inputs = {"student_input": student_input, "teacher_input": teacher_input}
    try:
        pairs = suggest_taps(student, teacher, **inputs)
    except ValueError as error:
        if "can be paired" not in str(error):
            raise
        pairs = ()
    terms += [_feature_term(pair) for pair in pairs if pair.stage_end]
    return SuggestedTerms(terms)


def _task(student, teacher, loss) -> str:
    if loss is None and isinstance(teacher, keras.Model) and teacher.compiled:
        loss = teacher.loss
    width = _width(student)
    task = None
    if loss is not None and not isinstance(loss, (dict, list, tuple)):
        task = task_of_loss(loss, width)
    return task or task_of_width(width)


def _width(model) -> int | None:
    outputs = getattr(model, "outputs", None) or []
    return outputs[0].shape[-1] if len(outputs) == 1 else None


def _feature_term(pair: TapPair) -> Term:
    adapters = {side: TokensToMap(size) for side, size in pair.map_sizes().items()}
    loss, taps = getattr(losses, pair.loss)(), (pair.student, pair.teacher)
    return Term(loss, *taps, weight=BALANCED, name=pair.name, **adapters)
