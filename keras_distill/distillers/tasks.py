"""What a student predicts: classes, independent labels or values."""

import functools

import keras

from keras_distill.data.selection import names_of_outputs, part_of_output
from keras_distill.distillers.task_term import loss_for
from keras_distill.taps import Tap
from keras_distill.teachers.base_teacher import CLASSES, LABELS, VALUES, Request
from keras_distill.training.data_checks import known_loss

_LOSSES = {
    CLASSES: "CategoricalCrossentropy categorical_crossentropy "
    "SparseCategoricalCrossentropy sparse_categorical_crossentropy "
    "CategoricalFocalCrossentropy categorical_focal_crossentropy "
    "CategoricalGeneralizedCrossEntropy categorical_generalized_cross_entropy "
    "KLDivergence kl_divergence CategoricalHinge categorical_hinge CTC ctc",
    LABELS: "BinaryCrossentropy binary_crossentropy "
    "BinaryFocalCrossentropy binary_focal_crossentropy "
    "Hinge hinge SquaredHinge squared_hinge",
    VALUES: "MeanSquaredError mean_squared_error MeanAbsoluteError mean_absolute_error "
    "MeanAbsolutePercentageError mean_absolute_percentage_error "
    "MeanSquaredLogarithmicError mean_squared_logarithmic_error "
    "Huber huber LogCosh log_cosh Poisson poisson "
    "CosineSimilarity cosine_similarity Circle circle",
}
ARE = {
    CLASSES: "the logits of one softmax over classes",
    LABELS: "logits of independent labels, a sigmoid each",
    VALUES: "values of a regression",
}


def task_of_loss(loss, width: int | None = None) -> str | None:
    """Return what a model predicts that is trained with one of Keras's losses.

    Args:
        loss: a name, a function or a `keras.losses.Loss`.
        width: number of outputs. Default: unknown.

    Returns:
        `"classes"`, `"labels"` or `"values"`; None for a loss that is not Keras's own, as
        its name says nothing of its outputs.
    """
    if loss in ("crossentropy", "ce"):
        return LABELS if width == 1 else CLASSES
    loss = known_loss(loss)
    for kind, known in _known_losses().items():
        if any(
            isinstance(loss, x) if isinstance(x, type) else loss is x for x in known
        ):
            return kind
    return None


@functools.cache
def _known_losses() -> dict:
    return {
        kind: [
            getattr(keras.losses, x) for x in names.split() if hasattr(keras.losses, x)
        ]
        for kind, names in _LOSSES.items()
    }


def check(distiller) -> None:
    """Check that each term fits what the student predicts.

    Raises:
        ValueError: it does not; the message names the loss that does.
    """
    for bound in distiller.terms.values():
        term = bound.term
        _check_gradients(distiller, term)
        if any(isinstance(adapter, keras.Layer) for adapter in term.adapters):
            continue
        wanted, width = term.loss.predicts, width_of(term, distiller.shapes["student"])
        if wanted == CLASSES and width == 1:
            raise ValueError(_of_one_number(term, bound.task))
        if wanted in (CLASSES, LABELS) and bound.task not in (None, wanted):
            raise ValueError(
                f"Term '{term.name}' does not fit the task: {_name(term.loss)} takes "
                f"outputs as {ARE[wanted]}, but the loss that the student is compiled "
                f"with says that they are {ARE[bound.task]}. Use "
                f"kd.losses.{_name(loss_for(bound.task))}."
            )
    requests = distiller.requests
    losses = {name: bound.term.loss for name, bound in distiller.terms.items()}
    distiller.teacher.check(
        [Request(*request[:-2], losses[request.term].predicts) for request in requests]
    )


def _of_one_number(term, task: str | None) -> str:
    binary, regression = (f"kd.losses.{_name(loss_for(x))}" for x in (LABELS, VALUES))
    right = {LABELS: binary, VALUES: regression}.get(
        task, f"{binary} for a binary classifier, {regression} for a regression"
    )
    return (
        f"Term '{term.name}' does not fit the task: {_name(term.loss)} compares a softmax, "
        f"and the student returns one number, of which it is always 1. Use {right}."
    )


def _check_gradients(distiller, term) -> None:
    """Check that the cross-entropy of which a gradient is tapped is that of classes."""
    first_class = Tap.input_gradient("first_class").path
    for tap in (*term.student, *term.teacher):
        if not tap.is_gradient or tap.path == first_class:
            continue
        task = _task_of_output(distiller, Tap.output(), distiller.classes)
        if task in (LABELS, VALUES) or distiller.classes == 1:
            raise ValueError(
                f"Term '{term.name}' taps '{tap}', a gradient of the labels' softmax "
                "cross-entropy, but the student's outputs are "
                f"{ARE[task if task in (LABELS, VALUES) else LABELS]}. Tap "
                "kd.Tap.input_gradient('first_class'), that of its largest output."
            )


def task_of_term(distiller, term, shapes) -> str | None:
    """Return what the student's tensor of a term predicts, None if that is unknown."""
    tap, width = term.student[0], width_of(term, shapes)
    if tap.is_output:
        return _task_of_output(distiller, tap, width)
    # A layer as wide as the only output, such as the logits before an activation.
    if width is not None and width == distiller.classes and not tap.is_gradient:
        return _task_of_output(distiller, Tap.output(), width)
    return None


def _task_of_output(distiller, tap: Tap, width: int | None) -> str | None:
    loss = part_of_output(
        distiller.loss_of_task(), tap, names_of_outputs(distiller.student)
    )
    return None if loss is None else task_of_loss(loss, width)


def task_of_teacher(distiller, term, shapes) -> str | None:
    """Return what the teacher's models were compiled to predict, None if unknown."""
    if distiller.teacher is None or not term.teacher[0].is_output:
        return None
    (_, tap), width = term.teacher[0].of_member(), width_of(term, shapes)
    found = set()
    for model in distiller.teacher.models:
        loss = getattr(model, "loss", None) if model.compiled else None
        loss = part_of_output(loss, tap, names_of_outputs(model))
        found.add(None if loss is None else task_of_loss(loss, width))
    return found.pop() if len(found) == 1 else None


def width_of(term, shapes: dict) -> int | None:
    """Return the number of outputs that a term compares; 1 for outputs `(B,)`.

    Args:
        term: of a distiller.
        shapes: of the student's taps, by the tap's text, as far as they are known.
    """
    shape = shapes.get(str(term.student[0]))
    return None if shape is None else shape[-1] if len(shape) > 1 else 1


def task_of_width(width: int | None) -> str:
    """Return what outputs are taken for where no loss shows it."""
    return LABELS if width == 1 else CLASSES


def _name(loss) -> str:
    return type(loss).__name__
