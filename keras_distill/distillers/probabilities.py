"""Whether values on the first batch are probabilities, where logits are expected."""

import warnings

import numpy as np
from keras import ops

from keras_distill.taps import Tap, heads
from keras_distill.taps.last_activations import (
    LINEAR,
    SIGMOID,
    SOFTMAX,
    last_activation,
)
from keras_distill.teachers.base_teacher import CLASSES

SURE, POSSIBLE = "sure", "possible"
# Values in 0..1: as many as a trained teacher's logits do not all have by chance, and as
# many as are worth a warning.
_MANY, _SOME = 16, 4


class Probabilities:
    """Finds probabilities among the tensors of a first batch, and warns once of each."""

    def __init__(self):
        self.warned = set()

    def judge(self, task, side: str, model, tap: Tap, tensor, inputs) -> str | None:
        """Return `SURE`, `POSSIBLE` or None for a tensor that is compared as logits.

        Rows that sum to 1, and what a layer shows, are sure. Values between 0 and 1 alone
        are not, as small logits lie there too: many of a trained teacher's, on both
        sides of 0.5, are taken for probabilities, all others for possible ones.

        Args:
            task: what the outputs are, `"classes"` or `"labels"`.
            side: `"student"` or `"teacher"`.
            model: that returns it, None if it is of no model.
            tap: of the model.
            tensor: its value on the batch.
            inputs: of the model.
        """
        if task == CLASSES and heads.sum_to_one(tensor):
            return SURE
        if not heads.within_unit_interval(tensor):
            return None
        end = None if model is None else last_activation(model, inputs, tap)
        # Features behind a sigmoid may be compared through a softmax.
        shown = tap.is_output or task != CLASSES
        if shown and end in (SIGMOID, SOFTMAX):
            return SURE
        if not shown or end == LINEAR or not _vary(tensor):
            return None
        values = np.prod(tensor.shape)
        is_trained = side == "teacher" and task != CLASSES
        if is_trained and values >= _MANY and heads.lie_around(tensor, 0.5):
            return SURE
        return POSSIBLE if values >= _SOME else None

    def are_logits(self, model, tap: Tap, tensor, inputs) -> bool:
        """Whether some values are no probabilities, or their layer has no activation."""
        tensor = ops.cast(tensor, "float32")
        if bool(ops.any(tensor < 0.0)) or bool(ops.any(tensor > 1.01)):
            return True
        return last_activation(model, inputs, tap) == LINEAR

    def warn(self, model, tap: Tap, what: str, fix: str) -> None:
        """Warn of possible probabilities, once for each tensor."""
        key = id(model), tap.output_name if tap.is_output else tap
        if key not in self.warned:
            self.warned.add(key)
            warnings.warn(
                f"{what}: all values of the first batch lie between 0 and 1. If they are, "
                f"{fix} If they are logits, all is well.",
                stacklevel=4,
            )


def _vary(tensor) -> bool:
    """Whether values differ, and are not all 0 or 1."""
    wide = ops.cast(tensor, "float32")
    if bool(ops.all((wide == 0.0) | (wide == 1.0))):
        return False
    return bool(ops.max(wide) - ops.min(wide) > 1e-4)
