"""What every distillation loss shares: dtype, context, weights and reduction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill.adapters.match import Match
from keras_distill.losses.schedules import at_step

CONTEXT = ("labels", "student_logits", "teacher_logits", "sample_ids", "step", "mask")


class DistillationLoss(keras.losses.Loss):
    """Compares what a student and its teacher make of a batch.

    A method subclasses it and writes `call`, which gives one value per sample, `(B,)`,
    or one per token, `(B, L)`, for tensors of a sequence. This base casts to the loss's
    dtype, stops the teacher's gradient, hands over what the loss asks for, and averages
    as Keras does: `sum_i w_i l_i / B`, masked entries left out.

    Class attributes that a method sets:

    - `match`: the `kd.adapters.Match` that adapters bring about before the loss sees the
      tensors. Default `Match.ALL`.
    - `taps`: how many layers a side are compared. With more than one, `call` gets
      tuples.
    - `compares_teacher`: whether it asks anything of the teacher; if not, a term has no
      tap of it.
    - `several_teachers`: whether it takes any number of the teacher's layers, as those
      of an ensemble's members; `call` then gets a tuple of them.
    - `trains_teacher_adapters`: whether adapters on the teacher's side learn by it too;
      the teacher itself never does.
    - `recommended_weight`: the weight of a term that is given none.
    - `needs`: keyword arguments that `call` asks for beside the tensors, out of
      `labels`, `student_logits`, `teacher_logits`, `sample_ids`, `step`, `mask`;
      `teacher_norm`, deviation and mean, `(C,)`, that the batch normalisation at the
      teacher's tap gives its channels; `student_head` and `teacher_head`, kernel, bias
      and whether the kernel is transposed, of the layer whose input is tapped; and
      `memory`, the layer that `memory()` made.
    - `labels_are_classes`: whether it takes labels as classes of the student's logits,
      so that `fit` checks their range.
    - `scheduled`: attributes that are a number or a schedule; `call` gets their value at
      this step under the same name.

    Args:
        name: in the logs. Default: the class name in snake case.
        reduction: as in `keras.losses.Loss`. Default `"sum_over_batch_size"`.
        dtype: in which the loss computes. Default: Keras's `floatx`.

    Example:
        >>> class ProbabilityDistance(kd.losses.DistillationLoss):
        ...     match = kd.adapters.Match.CLASSES
        ...     def call(self, teacher, student):
        ...         gap = ops.softmax(teacher) - ops.softmax(student)
        ...         return ops.sum(ops.square(gap), axis=-1)
    """

    match: ClassVar[Match] = Match.ALL
    taps: ClassVar[int] = 1
    compares_teacher: ClassVar[bool] = True
    several_teachers: ClassVar[bool] = False
    trains_teacher_adapters: ClassVar[bool] = False
    recommended_weight: ClassVar[float] = 1.0
    needs: ClassVar[tuple[str, ...]] = ()
    labels_are_classes: ClassVar[bool] = False
    scheduled: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        name: str | None = None,
        *,
        reduction: str = "sum_over_batch_size",
        dtype=None,
    ):
        name = name or re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, teacher, student, sample_weight=None, **context):
        """Compare and average over the batch.

        Args:
            teacher: the teacher's tensor, or a tuple of them.
            student: the student's, of the same structure.
            sample_weight: `(B,)`, or one weight a token, `(B, L)`.
            **context: what `needs` and `scheduled` name.

        Returns:
            A scalar, or the values themselves where the reduction is None.

        Raises:
            ValueError: the loss needs something that was not given.
        """
        teacher = keras.tree.map_structure(self._cast, teacher)
        if not self.trains_teacher_adapters:
            teacher = keras.tree.map_structure(ops.stop_gradient, teacher)
        student = keras.tree.map_structure(self._cast, student)
        values = self.call(teacher, student, **self._arguments(context))
        weight = _combine(values, sample_weight, context.get("mask"))
        mean = _Mean(self.name, reduction=self.reduction, dtype=self.dtype)
        return mean(values, values, weight)

    def adapters(self, student: tuple, teacher: tuple):
        """Infer the adapters of a pair of taps, where a term says `"auto"`.

        Args:
            student: shape of the student's tensor, batch first.
            teacher: shape of the teacher's.

        Returns:
            The layer for the student and the layer for the teacher, None for no layer.
        """
        return self.match.infer(student, teacher)

    def joint_adapter(self, student: Sequence[tuple], teacher: Sequence[tuple]):
        """Infer one adapter of all the student's taps, in place of one a tap.

        Args:
            student: shapes of the student's tensors.
            teacher: shapes of the teacher's.

        Returns:
            A layer from a list of tensors to a list, or None: the common case.
        """
        del student, teacher

    def memory(self):
        """Make the layer that keeps what the loss remembers from step to step, or None.

        It is saved with the distiller; its weights are not trained.
        """

    def prerequisites(self) -> tuple:
        """Give the layers that are trained, and then frozen, before a student is."""
        return ()

    def arrange(self, teacher, student) -> tuple:
        """Give the lists of both sides' tensors in the form that `call` takes."""
        if self.several_teachers or self.taps > 1 or not self.compares_teacher:
            teacher = tuple(teacher)
        else:
            (teacher,) = teacher
        return teacher, tuple(student) if self.taps > 1 else student[0]

    def call(self, teacher, student, **context):
        """Give one value per sample, `(B,)`, or per token, `(B, L)`."""
        raise NotImplementedError

    def get_config(self) -> dict:
        """Give the arguments, schedules included."""
        config = super().get_config()
        for name in self.scheduled:
            value = getattr(self, name)
            if isinstance(value, LearningRateSchedule):
                value = keras.saving.serialize_keras_object(value)
            config[name] = value
        return config

    @classmethod
    def from_config(cls, config: dict):
        """Make a loss from its arguments."""
        return cls(**keras.saving.deserialize_keras_object(config))

    def _cast(self, tensor):
        return ops.cast(ops.convert_to_tensor(tensor), self.dtype)

    def _arguments(self, context: dict) -> dict:
        values = {"mask": None, **context}
        for name in self.scheduled:
            values.setdefault(name, at_step(getattr(self, name), 0))
        missing = [name for name in self.needs if name not in values]
        if missing:
            raise ValueError(
                f"The loss '{self.name}' needs {missing}, which it was not given; got "
                f"{sorted(context)}. Pass them by name, or use it in a Distiller on "
                "data that has them."
            )
        return {name: values[name] for name in (*self.needs, *self.scheduled)}


class _Mean(keras.losses.Loss):
    """Keras's own reduction, replica scaling included, of values that are at hand."""

    def call(self, y_true, y_pred):
        return y_pred


def _combine(values, sample_weight, mask):
    """Bring sample weights and a mask to the rank of the values and multiply them."""
    rank = len(values.shape)
    weight = None
    if sample_weight is not None:
        weight = ops.cast(ops.convert_to_tensor(sample_weight), values.dtype)
        while len(weight.shape) > rank:
            weight = ops.mean(weight, axis=-1)
        while len(weight.shape) < rank:
            weight = ops.expand_dims(weight, axis=-1)
    if mask is not None and len(mask.shape) == rank:
        mask = ops.cast(mask, values.dtype)
        # Keras's rule: the valid entries share the weight of all.
        share = ops.divide_no_nan(
            mask * ops.cast(ops.size(mask), mask.dtype), ops.sum(mask)
        )
        weight = share if weight is None else weight * share
    return weight
