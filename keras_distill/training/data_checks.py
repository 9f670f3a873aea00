"""Checks of the data that `fit` is called with, before the first step."""

import functools
import inspect
from collections.abc import Iterable

import keras
import numpy as np

# Losses of probabilities without a from_logits.
_WITHOUT_CHOICE = (
    "Dice dice Tversky tversky KLDivergence kl_divergence "
    "CategoricalGeneralizedCrossEntropy categorical_generalized_cross_entropy"
)


def check_logits_loss(loss) -> None:
    """Check that no compiled loss takes probabilities, for a student of logits."""
    for part in keras.tree.flatten(loss):
        if takes_probabilities(part):
            raise ValueError(of_probabilities(part))


def of_probabilities(loss, where: str = "") -> str:
    """Return the message for a student of logits whose loss takes probabilities.

    Args:
        loss: as in `takes_probabilities`.
        where: of several outputs, which one.
    """
    name = getattr(loss, "name", getattr(loss, "__name__", loss))
    start = (
        f"The student returns logits{where}, but the loss {name!r} takes probabilities"
    )
    known = None if loss in ("crossentropy", "ce") else known_loss(loss)
    if _is_one_of(known, _WITHOUT_CHOICE):
        return (
            f"{start}, and has no from_logits. Compile a function that takes the softmax "
            "of the logits, or their sigmoid for independent labels, such as lambda y, z: "
            f"keras.losses.{_function_name(known)}(y, keras.ops.softmax(z))."
        )
    name = type(known).__name__
    if not isinstance(known, keras.losses.Loss):
        name = getattr(known, "__name__", "").title().replace("_", "")
    if not hasattr(keras.losses, name or " "):
        name = "SparseCategoricalCrossentropy"
    return (
        f"{start} (from_logits=False). Use, for example, "
        f"keras.losses.{name}(from_logits=True)."
    )


def takes_means(loss) -> bool:
    """Whether a loss takes the logarithm of a prediction, which then is positive."""
    return _is_one_of(known_loss(loss), "Poisson poisson")


def _is_one_of(loss, names: str) -> bool:
    """Whether a loss is one of Keras's; a subclass may compute anything."""
    known = [
        getattr(keras.losses, x) for x in names.split() if hasattr(keras.losses, x)
    ]
    return any(loss is x or type(loss) is x for x in known)


def _function_name(loss) -> str:
    function = getattr(loss, "fn", loss)
    return function.__name__


def takes_probabilities(loss) -> bool | None:
    """Whether a loss takes probabilities; None if it is not Keras's, or has no such choice.

    Args:
        loss: a name, a function or a `keras.losses.Loss`.
    """
    if loss in ("crossentropy", "ce"):
        return True
    chosen = {}
    while isinstance(loss, functools.partial):
        loss, chosen = loss.func, {**loss.keywords, **chosen}
    loss = known_loss(loss)
    if _is_one_of(loss, _WITHOUT_CHOICE):
        return True
    if isinstance(loss, keras.losses.Loss):
        from_logits = loss.get_config().get("from_logits")
        return None if from_logits is None else not from_logits
    if loss is None or not loss.__module__.startswith("keras."):
        return None
    default = inspect.signature(loss).parameters.get("from_logits")
    return None if default is None else not chosen.get("from_logits", default.default)


def known_loss(loss):
    """Return the loss that `compile` takes a name or a class for; None if unknown."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    try:
        return keras.losses.get(loss)
    except (ValueError, TypeError):
        return None


def check_labels(labels, classes: int | None, loss) -> None:
    """Check that there are labels, within the classes, where the compiled loss needs them."""
    if loss is None:
        return
    if labels is None:
        raise ValueError(
            "A loss for labels was compiled, but the data have none. Leave out the loss "
            "in compile(), and set label_weight=0, to learn from the teacher alone."
        )
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        check_classes(labels, classes, loss.get_config().get("ignore_class"))


def check_term_labels(
    labels, classes: int | None, terms: Iterable, ignored: int | None = None
) -> None:
    """Check that there are labels, within the classes, where a term needs them.

    Args:
        labels: of the data, or None.
        classes: number of the student's logits.
        terms: of a distiller.
        ignored: class that terms leave out.
    """
    for term in terms:
        gradients = [x for x in (*term.student, *term.teacher) if x.needs_labels]
        if labels is None and gradients:
            raise ValueError(
                f"Term '{term.name}' taps '{gradients[0]}', a gradient of the labels' "
                "cross-entropy, but the data have no labels. Pass labels, or tap "
                "kd.Tap.input_gradient('first_class')."
            )
        if term.loss.needs_one_class:
            _check_one_class(labels, classes, term)
        if term.loss.compares_samples and "labels" in term.loss.needs:
            _check_of_samples(labels, classes, term)
        shared = term.shared_classes
        if shared and "labels" in term.loss.needs and _are_classes(labels):
            check_classes(labels, min(classes or shared, shared), ignored)
        if not term.loss.labels_are_classes:
            continue
        if labels is None:
            raise ValueError(
                f"The loss of term '{term.name}' takes labels, but the data have none. "
                "Pass labels, or set the loss's label_weight to 0."
            )
        check_classes(labels, classes, ignored)


def check_has_part(labels, term) -> None:
    """Check that the output of a term has labels, if its loss takes them."""
    if labels is not None or "labels" not in term.loss.needs:
        return
    tap = term.student[0]
    if tap.is_output:
        fix = f"Pass labels for '{tap}' as well"
    else:
        fix = "Tap one output by its name, as in 'logits/<name>'"
    raise ValueError(
        f"{type(term.loss).__name__} of term '{term.name}' takes the labels of the one "
        f"output that it taps, but of several outputs' labels none are of '{tap}'. {fix}, "
        "or use a loss without labels, such as kd.losses.SoftTarget()."
    )


def check_no_sample_is_ignored(labels, term, ignored: int | None) -> None:
    """Check that a loss which compares samples has to leave none of them out."""
    if ignored is None or labels is None or not term.loss.compares_samples:
        return
    if len(labels.shape) == 1 or tuple(labels.shape[1:]) == (1,):
        raise ValueError(
            f"Term '{term.name}' compares the samples of a batch with each other, and "
            f"{type(term.loss).__name__} can't leave out those whose label is the "
            f"ignore_class of the compiled loss, {ignored}. Filter these samples out of "
            "the data, and compile a loss without ignore_class."
        )


def _as_numpy(labels):
    """Return labels as an array, also where they are on a device."""
    if keras.ops.is_tensor(labels):
        labels = keras.ops.convert_to_numpy(labels)
    return np.asarray(labels)


def _are_classes(labels) -> bool:
    return labels is not None and np.issubdtype(_as_numpy(labels).dtype, np.integer)


def _check_one_class(labels, classes: int | None, term) -> None:
    """Check that no row of labels has several nonzero entries, as mixed ones have."""
    if labels is None or not hasattr(labels, "shape") or len(labels.shape) < 2:
        return
    rows = _as_numpy(labels)
    if rows.dtype.kind == "f" and rows.shape[-1] == classes and rows.max() <= 1:
        mixed = np.count_nonzero(rows, axis=-1) > 1
    else:
        mixed = rows != np.round(rows)
    if mixed.any():
        raise ValueError(
            f"The loss of term '{term.name}' is of one class per sample, but the labels "
            "are mixed: rows of several nonzero entries, as MixUp, CutMix and smoothing "
            "make. Use a term without labels, such as kd.losses.SoftTarget(), or one "
            "that takes rows, such as kd.losses.ConfidenceWeightedLabel()."
        )


def _check_of_samples(labels, classes: int | None, term) -> None:
    """Check that labels are one class per sample, as a number or a row."""
    shape = tuple(getattr(labels, "shape", ()))
    if len(shape) > 2 or (len(shape) == 2 and shape[1] not in (1, classes)):
        raise ValueError(
            f"{type(term.loss).__name__} of term '{term.name}' compares samples by their "
            f"class, but the labels have the shape {shape}: expected one class per "
            "sample, (B,), or a row of classes. Use a loss of tokens, or one that takes "
            "no labels, such as kd.losses.SimilarityMatrix()."
        )


def check_classes(labels, classes: int | None, ignored=None) -> None:
    """Check that labels are within the classes."""
    if not classes:
        return
    labels = _as_numpy(labels)
    outside = (labels < 0) | (labels >= classes)
    if ignored is not None:
        outside &= labels != ignored
    if outside.any():
        raise ValueError(
            f"Labels must lie in 0..{classes - 1}, as the student returns {classes} "
            f"logits; got {np.unique(labels[outside])[:5].tolist()}. Relabel the data, or "
            "give student and teacher more classes."
        )
