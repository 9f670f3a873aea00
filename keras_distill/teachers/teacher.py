"""A teacher that is one trained model."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import keras
from keras import ops

from keras_distill._backend.keras_layers import mask_of, with_mask
from keras_distill.taps import Tap, heads
from keras_distill.teachers.base_teacher import (
    INPUT_GRADIENT,
    BaseTeacher,
    check_trained,
)


class Teacher(BaseTeacher):
    """One trained model that teaches.

    It runs in inference form and is never trained, counted or saved with the student.
    `Distiller` wraps a `keras.Model` in it; create one yourself to subclass it, to let
    the student learn some of the teacher's classes, or to let the teacher take a batch in
    portions. On a CPU the feature maps of a portion stay in the caches, which can save a
    fifth of a conv net's time (`benchmarks/frozen_teacher.py`); a GPU is faster with the
    whole batch.

    Args:
        model: a built `keras.Model` that ends in logits.
        classes: the teacher's classes that the student predicts, in the student's order:
            `classes[i]` is the index in the teacher's logits of the student's class i.
            The others' logits are left out, as if the teacher did not know them. Default:
            all.
        portions: number of parts in which it takes a batch, of dense inputs. A sample's
            outputs must not depend on the other samples, and tapped tensors are batch
            first. Default 1.

    Raises:
        TypeError: `model` is not a `keras.Model`.
        ValueError: `model` is not built, so it can't have been trained; `portions` is
            below 1; `classes` are not different indices of the teacher's logits.

    Example:
        >>> knowledge = kd.Teacher(model)(images, kd.taps.as_taps(["logits", "stack2"]))
        >>> on_a_cpu = kd.Teacher(kd.freeze(model, images[:64]), portions=4)
        >>> of_animals = kd.Teacher(model, classes=[2, 3, 4, 5, 6, 7])
    """

    lacks: ClassVar[dict] = {}

    def __init__(
        self,
        model: keras.Model,
        *,
        classes: Sequence[int] | None = None,
        portions: int = 1,
    ):
        check_trained(model)
        super().__init__([model], portions=portions)
        self.model = model
        self.classes = check_classes(classes, model)
        if classes is not None:
            self.lacks = {INPUT_GRADIENT: _NO_GRADIENT, **self.lacks}

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Run once, as far as the deepest tap; return the tensors, gradients stopped."""
        taps = tuple(taps)
        self._check_gradients(taps)
        tensors = self._run(self.model, inputs, taps, scores)
        return of_classes(tensors, self.classes, self.model)

    def head_classes(self, inputs, tap: Tap) -> int:
        """Return the number of classes of the last layer, whose input is tapped."""
        count = super().head_classes(inputs, tap)
        if self.classes is None:
            return count
        _check_range(self.classes, count, self.model)
        return len(self.classes)

    def head(self, tap: Tap) -> heads.Head:
        """Return the last layer, whose input is tapped, without gradient."""
        return super().head(tap).of_classes(self.classes)


def of_classes(tensors: dict, classes: Sequence[int] | None, model) -> dict:
    """Return tensors by tap, of which outputs keep some of their classes in an order."""
    if classes is None:
        return tensors
    for tap in (tap for tap in tensors if tap.is_output):
        if tap.output_name:
            raise ValueError(
                f"classes are of a teacher with one output, but '{tap}' is one of several "
                f"of '{model.name}'. Pass a model that ends in that output."
            )
        _check_range(classes, tensors[tap].shape[-1], model)
        chosen = ops.take(tensors[tap], classes, axis=-1)
        tensors[tap] = with_mask(chosen, mask_of(tensors[tap]))
    return tensors


def check_classes(classes, model: keras.Model) -> list[int] | None:
    """Return classes as integers, if they are different indices of a model's logits."""
    if classes is None:
        return None
    numbers = [int(c) for c in classes]
    if numbers != list(classes) or len(set(numbers)) < len(numbers) or not numbers:
        raise ValueError(
            "classes are different indices of the teacher's logits, in the student's "
            f"order; got {list(classes)}."
        )
    outputs = getattr(model, "outputs", None) or []
    _check_range(numbers, outputs[0].shape[-1] if len(outputs) == 1 else None, model)
    return numbers


def _check_range(classes: Sequence[int], count: int | None, model) -> None:
    outside = [c for c in classes if c < 0 or (count is not None and c >= count)]
    if outside:
        last = "the last" if count is None else count - 1
        raise ValueError(
            f"classes are indices of the logits of '{model.name}', 0 to {last}; got "
            f"{outside}."
        )


_NO_GRADIENT = (
    "A teacher of some of its classes has no gradient with respect to the input: labels "
    "are the student's. Leave classes out, or the term."
)
