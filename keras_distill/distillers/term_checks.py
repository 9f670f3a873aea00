"""Checks of what a user gives, before the first step."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import keras
import numpy as np

from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.schedules import at_step
from keras_distill.taps import tracing

_RESERVED = ("loss", "label_loss")


def is_distillation_loss(loss) -> None:
    """Refuse what is not a loss of this package, a bare function above all."""
    if not isinstance(loss, DistillationLoss):
        raise ValueError(
            "A term's loss must be a kd.losses.DistillationLoss, which is averaged alike "
            f"on one replica and many; got {getattr(loss, '__name__', loss)!r}. Use one of "
            "kd.losses, or subclass kd.losses.DistillationLoss and put the function's "
            "body into its `call`."
        )


def is_log_name(name: str) -> None:
    """Refuse names that Keras can't use for a layer, or that the logs use."""
    if name in _RESERVED or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", str(name)):
        raise ValueError(
            f"A term's name must be letters, digits, '_', '-' or '.', and none of "
            f"{_RESERVED}, which the logs use; got {name!r}."
        )


def has_taps(
    name: str, loss: DistillationLoss, student: Sequence, teacher: Sequence
) -> None:
    """Check that a term taps as many layers as its loss compares."""
    count, any_number = loss.taps, loss.several_teachers or not loss.compares_teacher
    for side, given in (("student", student), ("teacher", teacher)):
        if len(given) != count and not (side == "teacher" and any_number):
            raise ValueError(
                f"The loss of term '{name}' compares {count} layer(s) a side, but "
                f"{side}= names {len(given)}: {[str(tap) for tap in given]}. Give "
                f"{'a tuple of ' if count > 1 else ''}{count}."
            )


def not_negative(value, what: str):
    """Check that a number, or a schedule at its start, is zero or more."""
    start = float(at_step(value, 0))
    if not start >= 0.0:
        raise ValueError(
            f"{what} must be 0 or more; got {start:g}. A negative weight would push the "
            "student away from its target."
        )
    return value


def are_adapters(name: str, adapters: Sequence, count: int, several: bool) -> None:
    """Check each adapter of a term."""
    if len(adapters) != count:
        raise ValueError(
            f"Term '{name}' has {count} tap(s) a side, but {len(adapters)} adapters."
        )
    for adapter in adapters:
        if not (
            adapter is None or adapter == "auto" or isinstance(adapter, keras.Layer)
        ):
            raise TypeError(
                f"The adapter of term '{name}' must be 'auto', None or a "
                f"keras.layers.Layer; got {adapter!r}."
            )
    layers = [adapter for adapter in adapters if isinstance(adapter, keras.Layer)]
    if count > 1 and layers and not several:
        raise ValueError(
            f"Term '{name}' compares {count} layers, and one adapter layer can't serve "
            "each: give a tuple of adapters."
        )


def are_terms(terms: Sequence) -> None:
    """Check that the terms are terms, of different names, as the logs show each."""
    for term in terms:
        if not hasattr(term, "loss") or not hasattr(term, "adapters"):
            raise TypeError(f"terms is a list of kd.Term; got {term!r} in it.")
    twice = [name for name, n in Counter(term.name for term in terms).items() if n > 1]
    if twice:
        raise ValueError(
            f"Terms must have different names, as the logs show each; {twice} are there "
            "more than once. Give them names: kd.Term(..., name='hint_stack2')."
        )


def is_student(student) -> None:
    """Check the student's type."""
    if not isinstance(student, keras.Model):
        raise TypeError(
            f"The student must be a keras.Model; got {type(student).__name__}."
        )


def different_models(student, teacher) -> None:
    """Check that the student is not its own teacher."""
    if any(model is student for model in teacher.models):
        raise ValueError(
            f"The same object, '{student.name}', is teacher and student. Give the student "
            "a model of its own, as keras.models.clone_model(teacher) makes one."
        )


def can_train(teacher) -> None:
    """Check that there is what a training step needs."""
    if teacher is None:
        raise ValueError(
            "The distiller has no teacher: files of a distiller leave it out. Give it "
            "with distiller.set_teacher(teacher) before fit."
        )


def are_prepared(terms: Iterable, prepared: Sequence = ()) -> None:
    """Check that what is trained before a term's loss can be used was trained.

    Args:
        terms: of a distiller.
        prepared: layers that will have been trained by then.
    """
    for term in terms:
        for layer in term.loss.prerequisites():
            if layer.trainable and not any(layer is x for x in prepared):
                raise ValueError(
                    f"The {type(layer).__name__} of term '{term.name}' was not trained: "
                    "what it gives would say nothing. Call its train_on(teacher, tap, "
                    "images) first, or begin with a kd.ParaphraserStage."
                )


def same_shapes(built: dict, found: dict) -> None:
    """Check that another teacher fits the adapters that are there."""
    for tap, shape in built.items():
        if list(found[tap]) != list(shape):
            raise ValueError(
                f"The distiller was built for a teacher whose '{tap}' has the shape "
                f"{shape}; this one's is {found[tap]}. Give a teacher of the same "
                "architecture, or make a new Distiller."
            )


def same_vocabulary(student: int, teacher: int) -> None:
    """Check that the last layers of both nets give logits over as many classes."""
    if student != teacher:
        raise ValueError(
            f"The class counts differ: the student's last layer gives {student} logits, "
            f"the teacher's {teacher}. Both must predict the same classes in the same "
            "order; no adapter can join them."
        )


def runs(loss: DistillationLoss, student: Sequence, teacher: Sequence) -> None:
    """Try the loss on the adapted shapes, where it needs nothing but tensors."""
    if not set(loss.needs) <= {"mask"}:
        return
    specs = [
        [keras.KerasTensor(shape) for shape in side] for side in (student, teacher)
    ]
    tracing.trace(lambda sides: loss(*loss.arrange(sides[1], sides[0])), specs)


def mask_fits(name: str, mask, features) -> None:
    """Refuse a mask of another length than what it would mask, as pooling leaves it."""
    if mask is None or len(features.shape) < 3 or mask.shape[1] == features.shape[1]:
        return
    raise ValueError(
        f"Term '{name}': a mask of {mask.shape[1]} steps can't follow the student's "
        f"sequence, pooled to {features.shape[1]} steps. Tap layers of one length, or "
        "give an adapter layer."
    )


def takes_logits(loss) -> None:
    """Refuse a label loss that expects probabilities, on a student that gives logits."""
    for part in keras.tree.flatten(loss):
        if not _expects_probabilities(part):
            continue
        raise ValueError(
            f"The student gives logits, but the loss {getattr(part, 'name', part)!r} "
            "takes probabilities (from_logits=False). Use, for example, "
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
        )


def _expects_probabilities(loss) -> bool:
    if isinstance(loss, keras.losses.Loss):
        return loss.get_config().get("from_logits") is False
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", "")
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return name.endswith("crossentropy") or name == "ce"


def labels_fit(labels, classes: int | None, loss) -> None:
    """Refuse no labels, or integer labels outside the classes, where a loss takes them."""
    if loss is None:
        return
    if labels is None:
        raise ValueError(
            "A loss for labels was compiled, but the data have none. Leave out the loss "
            "in compile(), and set label_weight=0, to learn from the teacher alone."
        )
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        _are_classes(labels, classes, loss.get_config().get("ignore_class"))


def labels_fit_terms(labels, classes: int | None, terms: Sequence) -> None:
    """Refuse no labels, or such outside the classes, where a term takes them as classes."""
    for term in terms:
        if not term.loss.labels_are_classes:
            continue
        if labels is None:
            raise ValueError(
                f"The loss of term '{term.name}' takes labels, but the data have none. "
                "Give labels, or set the loss's label_weight to 0."
            )
        _are_classes(labels, classes)


def _are_classes(labels, classes: int | None, ignored=None) -> None:
    if not classes:
        return
    labels = np.asarray(labels)
    outside = (labels < 0) | (labels >= classes)
    if ignored is not None:
        outside &= labels != ignored
    if outside.any():
        raise ValueError(
            f"Labels must lie in 0..{classes - 1}, as the student gives {classes} "
            f"logits; got {np.unique(labels[outside])[:5].tolist()}. Relabel the data, or "
            "give student and teacher more classes."
        )


def can_be_read_again(x) -> None:
    """Refuse a generator where several trainings read the data."""
    if hasattr(x, "__next__"):
        raise ValueError(
            "Several trainings read the data one after another, and a generator ends "
            "with the first. Give arrays, a tf.data.Dataset or a keras.utils.PyDataset."
        )


def first_batch(x, y):
    """Look at the data: all of it if they are arrays, else the first batch.

    Returns:
        The data to train on, which for a generator holds the batch that was taken, and
        the batch as `(x, y, ...)`, or None where one can't look.

    Raises:
        ValueError: the data are empty.
    """
    if isinstance(x, keras.utils.PyDataset):
        count = x.num_batches
        if count is not None:
            _not_empty(count)
        return x, x[0]
    if hasattr(x, "element_spec"):
        return x, _first_of(x) if hasattr(x, "take") else None
    if hasattr(x, "__next__"):
        batch = _first_of(x)
        return _with_first(batch, x), batch
    arrays = [leaf for leaf in keras.tree.flatten(x) if hasattr(leaf, "shape")]
    if arrays:
        _not_empty(arrays[0].shape[0])
        return x, (x, y)
    return x, None


def _with_first(first, rest):
    yield first
    yield from rest


def _first_of(batches):
    batch = next(iter(batches), None)
    _not_empty(0 if batch is None else 1)
    return batch


def _not_empty(count: int) -> None:
    if not count:
        raise ValueError(
            "The training data are empty: expected at least one batch, got none. Check "
            "the filter, the split or the path that they come from."
        )
