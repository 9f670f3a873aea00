"""Whether a teacher knows the labels of the first batch better than chance."""

import warnings

import numpy as np
from keras import ops

from keras_distill.adapters import Match
from keras_distill.data.selection import names_of_outputs, part_of_output
from keras_distill.taps import mask_of
from keras_distill.teachers.base_teacher import CLASSES, LABELS

# Fewer samples show nothing; a student is better by this fraction of them.
_LEAST, _GAP = 8, 0.1


def warn_of_poor_teacher(distiller, seen, y, sample_weight) -> None:
    """Warn if a teacher is worse than chance or than the student, by two deviations.

    Worse than chance is one whose likelihood of the labels is, and that is right no more
    often. Labels must be at hand, hard, and of what a term compares.

    Args:
        distiller: of student and teacher.
        seen: what both return for the batch, a `Look`.
        y, sample_weight: of the batch.
    """
    for bound in distiller.terms.values():
        (tap, *_), of_teacher = bound.term.student, bound.term.teacher
        known = seen.knowledge.get(of_teacher[0]) if of_teacher else None
        compares = bound.term.loss.match is Match.CLASSES and tap.is_output
        if known is None or not compares or bound.predicts not in (CLASSES, LABELS):
            continue
        names = names_of_outputs(distiller.student)
        labels, weight = (
            _array(part_of_output(x, tap, names)) for x in (y, sample_weight)
        )
        if labels is None or not of_teacher[0].is_output:
            continue
        teacher = distiller.teacher.logits(known, 1.0, bound.predicts)
        scores = [
            _scores(z, labels, bound.predicts, weight)
            for z in (teacher, seen.features[tap])
        ]
        if None not in scores and (found := _finding(*scores)):
            warnings.warn(_message(distiller, found), stacklevel=2)
            return


def _message(distiller, found: str) -> str:
    names = ", ".join(f"'{model.name}'" for model in distiller.teacher.models)
    if not names:
        return (
            f"What the teacher gives may be of other samples or classes: on the first "
            f"batch {found}. Check that its rows and classes are in the order of the data."
        )
    return (
        f"The teacher {names} may know nothing: on the first batch {found}. In inference "
        "form that is usually batch normalization whose moving statistics have not "
        "settled (train longer, or with a lower momentum), inputs that are scaled "
        "differently than in its training, or classes in another order."
    )


def _array(values):
    # On torch a tensor may be on a GPU, which NumPy does not read.
    return ops.convert_to_numpy(values) if hasattr(values, "shape") else None


def _scores(logits, labels, task: str, weight):
    """Return chance, and how often right and how surprised, each sample; None if unknown."""
    logits = ops.cast(logits, "float32")
    found = (_of_classes if task == CLASSES else _of_labels)(logits, labels)
    if found is None:
        return None
    chance, right, nats, valid = found
    if mask_of(logits) is not None:
        valid = valid & ops.convert_to_numpy(mask_of(logits)).reshape(valid.shape)
    if weight is not None and np.shape(weight)[0] == len(valid):
        weight = np.asarray(weight, "float32").reshape(len(valid), -1)
        axes = (slice(None),) + (None,) * (valid.ndim - 1)
        valid = valid & (weight > 0).all(-1)[axes]
    right, nats, valid = (x.reshape(len(x), -1) for x in (right, nats, valid))
    rows = valid.any(-1)
    if rows.sum() < _LEAST:
        return None
    count = valid[rows].sum(-1)
    right, nats = ((x * valid)[rows].sum(-1) / count for x in (right, nats))
    return chance, right, nats


def _of_classes(logits, labels):
    classes, labels = logits.shape[-1], np.asarray(labels)
    if labels.shape == tuple(logits.shape) and classes > 1:
        if not ((labels == 0) | (labels == 1)).all() or (labels.sum(-1) != 1).any():
            return None
        labels = labels.argmax(-1)
    elif labels.shape == (*logits.shape[:-1], 1):
        labels = labels[..., 0]
    if labels.shape != tuple(logits.shape[:-1]) or (labels != np.round(labels)).any():
        return None
    valid = (labels >= 0) & (labels < classes)
    indices = ops.convert_to_tensor(np.where(valid, labels, 0).astype("int32"))
    likelihood = ops.take_along_axis(
        ops.log_softmax(logits, axis=-1), indices[..., None], axis=-1
    )
    right = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), indices)
    numbers = ops.convert_to_numpy
    return (
        (1 / classes, np.log(classes)),
        numbers(right).astype("float64"),
        -numbers(likelihood)[..., 0].astype("float64"),
        valid,
    )


def _of_labels(logits, labels):
    z = ops.convert_to_numpy(logits).astype("float64")
    labels = np.asarray(labels)
    if labels.size != z.size or not ((labels == 0) | (labels == 1)).all():
        return None
    labels = labels.reshape(z.shape).astype("float64")
    nats = np.logaddexp(0.0, np.where(labels > 0, -z, z))
    right = ((z > 0) == (labels > 0)).astype("float64")
    return (0.5, np.log(2.0)), right, nats, np.ones(z.shape, bool)


def _finding(teacher, student) -> str | None:
    """Return what is wrong with a teacher, None if nothing is, from the scores of both."""
    (chance, surprise), right, nats = teacher
    count, often = len(right), right.mean()
    excess = nats - surprise
    # Beyond rounding errors, in nats.
    unlikely = excess.mean() > 1e-3 + 2 * excess.std() / np.sqrt(count)
    if unlikely and often <= chance + 2 * np.sqrt(chance * (1 - chance) / count):
        return (
            f"it is right on {100 * often:.0f} % of the labels, where chance is "
            f"{100 * chance:.0f} %"
        )
    of_student = student[1].mean()
    deviation = np.sqrt(sum(p * (1 - p) / count for p in (often, of_student)))
    if of_student - often > max(2 * deviation, _GAP):
        return (
            f"it is right on {100 * often:.0f} % of the labels, and the student on "
            f"{100 * of_student:.0f} %"
        )
    return None
