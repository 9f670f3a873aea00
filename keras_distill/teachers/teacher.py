"""A teacher that is one trained model."""

from collections.abc import Iterable
from typing import ClassVar

import keras

from keras_distill.taps import Tap
from keras_distill.teachers.base_teacher import BaseTeacher, check_trained


class Teacher(BaseTeacher):
    """One trained model that teaches.

    It runs in inference form and is never trained, counted or saved with the student.
    `Distiller` wraps a `keras.Model` in it; create one yourself to subclass it, or to let
    the teacher take a batch in portions. On a CPU the feature maps of a portion stay in
    the caches, which can save a fifth of a conv net's time
    (`benchmarks/frozen_teacher.py`); a GPU is faster with the whole batch.

    Args:
        model: a built `keras.Model` that ends in logits.
        portions: number of parts in which it takes a batch, of dense inputs. A sample's
            outputs must not depend on the other samples, and tapped tensors are batch
            first. Default 1.

    Raises:
        TypeError: `model` is not a `keras.Model`.
        ValueError: `model` is not built, so it can't have been trained; `portions` is
            below 1.

    Example:
        >>> knowledge = kd.Teacher(model)(images, kd.taps.as_taps(["logits", "stack2"]))
        >>> on_a_cpu = kd.Teacher(kd.freeze(model, images[:64]), portions=4)
    """

    lacks: ClassVar[dict] = {}

    def __init__(self, model: keras.Model, *, portions: int = 1):
        check_trained(model)
        super().__init__([model], portions=portions)
        self.model = model

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Run once, as far as the deepest tap; return the tensors, gradients stopped."""
        taps = tuple(taps)
        self._check_gradients(taps)
        return self._run(self.model, inputs, taps, scores)
