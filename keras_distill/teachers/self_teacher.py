"""A student as its own teacher."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import keras

from keras_distill.taps import Tap, shapes_of
from keras_distill.taps.values import without_gradient
from keras_distill.teachers.base_teacher import BaseTeacher


class SelfTeacher(BaseTeacher):
    """A student that teaches itself: its knowledge comes from its own run."""

    checks_first_batch = False
    lacks: ClassVar[dict] = {}

    def __init__(self, model: keras.Model):
        super().__init__()
        self.model = model

    def shapes(self, inputs, taps: Sequence[Tap]) -> dict[str, list]:
        """Return the shape of each tap of the student."""
        return shapes_of(self.model, inputs, taps)

    def locate(self, tap: Tap) -> tuple[keras.Model, Tap]:
        """Return the student, and the tap."""
        return self.model, tap

    def knowledge(self, features: dict, taps: Iterable[Tap]) -> dict[Tap, object]:
        """Return the knowledge in the student's tensors, without gradient."""
        return {tap: without_gradient(features[tap]) for tap in taps}
