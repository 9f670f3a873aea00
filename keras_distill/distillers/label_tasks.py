"""What outputs are by their labels, where the compiled loss does not show it."""

import contextlib
import warnings

import numpy as np
from keras import ops

from keras_distill._backend.keras_trainer import strategy_of
from keras_distill.data.selection import names_of_outputs, part_of_output
from keras_distill.distillers import binding
from keras_distill.distillers.task_term import TaskTerm
from keras_distill.distillers.tasks import ARE, task_of_term
from keras_distill.taps import Tap
from keras_distill.teachers.base_teacher import CLASSES, LABELS, VALUES

# Rows that sum to 1 do so up to rounding.
_ROUNDING = 1e-3


def follow_labels(distiller, labels) -> None:
    """Settle default terms by the labels, for a loss that is not one of Keras's.

    Args:
        distiller: bound to the shapes of its taps.
        labels: of a batch or of all data, or None.

    Raises:
        ValueError: the labels do not show what the outputs are.
    """
    if labels is None or distiller.has_own_loss():
        return
    shapes, found = distiller.shapes["student"], {}
    for name, bound in distiller.terms.items():
        loss = _loss_of(distiller, bound.term.student[0])
        if loss is None or task_of_term(distiller, bound.term, shapes) is not None:
            continue
        shape = shapes.get(str(bound.term.student[0]))
        part = part_of_output(
            labels, bound.term.student[0], names_of_outputs(distiller.student)
        )
        found[name] = None if shape is None else task_of_labels(part, shape)
        if found[name] is None and isinstance(bound.term, TaskTerm):
            raise ValueError(_undecided(name, loss, part))
    before = [type(bound.term.loss) for bound in distiller.terms.values()]
    strategy = strategy_of(distiller)
    with strategy.scope() if strategy else contextlib.nullcontext():
        binding.settle(distiller, binding.known_lengths(distiller), found)
    if [type(bound.term.loss) for bound in distiller.terms.values()] != before:
        # Compiled for the terms before.
        distiller.train_function = distiller.test_function = None


def warn_of_guesses(distiller, labels) -> None:
    """Warn once of default terms that are chosen by the number of outputs alone."""
    has_loss = distiller.loss_of_task() is not None or distiller.has_own_loss()
    knows_classes = getattr(distiller.teacher, "classes", None) is not None
    if has_loss or knows_classes or distiller.warned_of_guesses:
        return
    names = names_of_outputs(distiller.student)
    for bound in distiller.terms.values():
        tap = bound.term.student[0]
        shape = distiller.shapes["student"].get(str(tap))
        part = None if labels is None else part_of_output(labels, tap, names)
        is_shown = shape is not None and task_of_labels(part, shape) == bound.predicts
        if bound.is_guess and not is_shown:
            distiller.warned_of_guesses = True
            warnings.warn(_guessed(bound), stacklevel=5)
            return


def _guessed(bound) -> str:
    others = {
        CLASSES: "SoftTarget() for classes",
        LABELS: "BinarySoftTarget() for labels",
    }
    del others[bound.predicts]
    return (
        f"The default term '{bound.name}' takes the outputs for "
        f"{ARE[bound.predicts]}, by their number alone: neither the distiller nor its "
        f"teacher was compiled with a loss. If they are something else, pass "
        f"terms=[kd.Term(loss)] with loss = kd.losses.{next(iter(others.values()))} or "
        f"kd.losses.OutputRegression() for values; if not, pass kd.losses."
        f"{type(bound.term.loss).__name__}(4.0), or compile the distiller or the teacher "
        "with its loss."
    )


def _loss_of(distiller, tap: Tap):
    names = names_of_outputs(distiller.student)
    tap = tap if tap.is_output else Tap.output()
    return part_of_output(distiller.loss_of_task(), tap, names)


def task_of_labels(labels, shape) -> str | None:
    """Return what outputs of a shape are whose labels are given.

    Args:
        labels: an array, or something else, which shows nothing.
        shape: of the outputs, `(B, ..., K)`, or `(B,)` for K = 1.

    Returns:
        `"classes"` for indices of the K and rows that sum to 1, `"labels"` for zeros and
        ones, `"values"` for other numbers; None if labels of several kinds look so.
    """
    if not hasattr(labels, "shape"):
        return None
    values = np.asarray(ops.convert_to_numpy(labels))
    if values.dtype.kind not in "fiub" or not values.size:
        return None
    width = shape[-1] if len(shape) > 1 else 1
    if width == 1:
        return _of_numbers(values)
    if values.ndim == len(shape) and values.shape[-1] == width:
        if values.min() >= 0 and (abs(values.sum(-1) - 1) < _ROUNDING).all():
            return CLASSES
        return _of_numbers(values)
    if values.ndim == len(shape) - 1 or values.shape[-1] == 1:
        return _of_indices(values, width)
    return None


def _of_numbers(values) -> str | None:
    """Return what numbers are, one for each output; None if they could be soft labels."""
    different = np.unique(values)
    if len(different) <= 2 and different.min() >= -1 and different.max() <= 1:
        return LABELS
    return None if different.min() >= 0 and different.max() <= 1 else VALUES


def _of_indices(values, width: int) -> str | None:
    """Return what a number for several outputs is; some indices may be left out."""
    if (values != np.round(values)).any():
        return VALUES
    return CLASSES if ((values >= 0) & (values < width)).mean() > 0.5 else None


def _undecided(name: str, loss, labels) -> str:
    what = getattr(loss, "__name__", getattr(loss, "name", loss))
    kind = f"{tuple(labels.shape)}" if hasattr(labels, "shape") else type(labels)
    return (
        f"The default term '{name}' follows what the outputs are, but neither the loss "
        f"{what!r}, which is not one of Keras's, nor its labels {kind} show it. Pass "
        "terms=[kd.Term(loss)] with loss = kd.losses.SoftTarget(4.0) for logits of "
        "classes, kd.losses.BinarySoftTarget(4.0) for those of independent labels, or "
        "kd.losses.OutputRegression() for values; or derive the loss from one of Keras's, "
        "as from keras.losses.MeanSquaredError."
    )
