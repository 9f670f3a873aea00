"""Which classes belong together, from a hierarchy that is known."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill.targets.target import NOTHING, Target, true_class


@keras.saving.register_keras_serializable(package="keras_distill")
class SuperClasses(Target):
    """One mass for the true class, one for its super-class, one for the rest.

        a for the label, b for each other class of its super-class, c for each of the
        rest, divided by their sum

    No teacher speaks in it; it asks what a known hierarchy alone is worth.

    Args:
        super_classes: of each class the super-class it belongs to, `(K,)`.
        masses: a, b and c, none negative, a above 0. Default 0.95, 0.02 and 0.001.

    Raises:
        ValueError: other masses than these.

    Example:
        >>> kd.targets.SuperClasses([0, 0, 1, 1, 1], (0.9, 0.05, 0.01))

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation (KD-rel).
    """

    needs = ("labels",)

    def __init__(
        self,
        super_classes: Sequence[int],
        masses: tuple[float, float, float] = (0.95, 0.02, 0.001),
    ):
        if len(masses) != 3 or min(masses) < 0 or not masses[0] > 0:
            raise ValueError(
                "masses are three numbers, none negative: of the true class (above 0), "
                f"of each class of its super-class, of each other class; got {masses}."
            )
        self.super_classes = [int(group) for group in super_classes]
        self.masses = tuple(masses)

    def call(self, teacher, temperature, labels):
        """Give log-probabilities, `(..., K)`."""
        label = true_class(labels, teacher)
        groups = ops.cast(self.super_classes, teacher.dtype)
        own = ops.sum(label * groups, axis=-1, keepdims=True)
        of_class, of_group, of_others = self.masses
        masses = ops.where(groups == own, of_group, of_others)
        masses = ops.cast(masses, teacher.dtype)
        masses = ops.where(label > 0, of_class, masses)
        p = masses / ops.sum(masses, axis=-1, keepdims=True)
        return ops.where(p > 0, ops.log(ops.where(p > 0, p, 1.0)), NOTHING)

    def get_config(self) -> dict:
        """Give the arguments."""
        return {"super_classes": self.super_classes, "masses": list(self.masses)}
