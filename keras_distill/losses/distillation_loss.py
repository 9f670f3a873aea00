"""Base of every distillation loss: dtype, context, weights and reduction."""

import re
from collections.abc import Sequence
from typing import ClassVar

import keras
from keras import ops

from keras_distill._backend.configuration import arguments
from keras_distill.adapters.match import Match
from keras_distill.losses.schedules import at_step


class DistillationLoss(keras.losses.Loss):
    """Base class of losses that compare a teacher's and a student's tensors.

    A loss is called as `loss(teacher, student)`, which is Keras's `(y_true, y_pred)`
    order. A method subclasses this and implements `call`, which returns one value per
    sample, `(B,)`, or one per token, `(B, L)`, for tensors of a sequence. This base
    casts to the loss's dtype, stops the teacher's gradient, passes what the loss needs,
    and averages as Keras does: `sum_i w_i l_i / B`, without masked entries.

    Class attributes that a method sets:

    - `match`: the `kd.adapters.Match` that adapters establish before the tensors are
      compared. Default `Match.ALL`.
    - `taps`: the number of layers per side. With more than one, `call` gets tuples.
    - `compares_teacher`: whether it uses the teacher's tensors; if not, a term has no
      tap of the teacher.
    - `predicts`: what it takes outputs of a model for: `"classes"`, the logits of one
      softmax; `"labels"`, a logit of a sigmoid each; `"values"`, numbers. An ensemble
      averages accordingly. Default None: anything.
    - `several_teachers`: whether it takes any number of the teacher's layers, such as
      those of an ensemble's members; `call` then gets a tuple of them.
    - `trains_teacher_adapters`: whether adapters on the teacher's side are trained by it
      too; the teacher itself never is.
    - `recommended_weight`: the weight of a term that has none of its own.
    - `needs`: keyword arguments that `call` takes in addition to the tensors, out of `labels`,
      `student_logits`, `teacher_logits`, `sample_ids`, `step`; `mask` and
      `teacher_mask`, `(B, L)`, those of the first tap of each side, or None; `teacher_norm`,
      the standard deviation and mean, `(C,)`, that the batch normalization at the
      teacher's tap gives its channels; `student_head` and `teacher_head`, the kernel,
      the bias and whether the kernel is transposed, of the layer whose input is tapped;
      and `memory`, the layer that `memory()` returned.
    - `labels_are_classes`: whether its labels are indices of the student's logits, so
      that `fit` checks their range.
    - `scheduled`: attributes that are a number or a schedule; `call` gets their value at
      the current step under the same name.

    Args:
        name: in the logs. Default: the class name in snake case.
        reduction: as in `keras.losses.Loss`. Default `"sum_over_batch_size"`.
        dtype: in which the loss is computed. Default: Keras's `floatx`.

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
    predicts: ClassVar[str | None] = None
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
            sample_weight: `(B,)`, or one weight per token, `(B, L)`.
            **context: the values that `needs` and `scheduled` name.

        Returns:
            A scalar, or the values themselves if the reduction is None.

        Raises:
            ValueError: the loss needs something that was not passed.
        """
        teacher = keras.tree.map_structure(self._cast, teacher)
        if not self.trains_teacher_adapters:
            teacher = keras.tree.map_structure(ops.stop_gradient, teacher)
        student = keras.tree.map_structure(self._cast, student)
        values = self.call(teacher, student, **self._arguments(context))
        weight = _combine(values, sample_weight, context.get("mask"))
        reduce = _Reduction(self.name, reduction=self.reduction, dtype=self.dtype)
        return reduce(values, values, weight)

    def adapters(self, student: tuple, teacher: tuple):
        """Infer the adapters of a pair of taps, for a term with `adapter="auto"`.

        Args:
            student: shape of the student's tensor, batch first.
            teacher: shape of the teacher's.

        Returns:
            The layer for the student and the layer for the teacher, None for no layer.
        """
        return self.match.infer(student, teacher)

    def joint_adapter(self, student: Sequence[tuple], teacher: Sequence[tuple]):
        """Infer one adapter for all of the student's taps, in place of one per tap.

        Args:
            student: shapes of the student's tensors.
            teacher: shapes of the teacher's.

        Returns:
            A layer from a list of tensors to a list, or None, as in most losses.
        """

    def memory(self):
        """Create the layer that holds the loss's state between steps, or return None.

        It is saved with the distiller; its weights are not trained.
        """

    def prerequisites(self) -> tuple:
        """Return the layers that must be trained and frozen before the student is."""
        return ()

    def arrange(self, teacher, student) -> tuple:
        """Arrange the lists of both sides' tensors as `call` takes them."""
        if self.several_teachers or self.taps > 1 or not self.compares_teacher:
            teacher = tuple(teacher)
        else:
            (teacher,) = teacher
        return teacher, tuple(student) if self.taps > 1 else student[0]

    def call(self, teacher, student, **context):
        """Return one value per sample, `(B,)`, or per token, `(B, L)`."""
        raise NotImplementedError

    def get_config(self) -> dict:
        own = arguments(self, DistillationLoss, *self.scheduled)
        return {**own, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**keras.saving.deserialize_keras_object(config))

    def _cast(self, tensor):
        return ops.cast(ops.convert_to_tensor(tensor), self.dtype)

    def _arguments(self, context: dict) -> dict:
        values = {"mask": None, "teacher_mask": None, **context}
        for name in self.scheduled:
            values.setdefault(name, at_step(getattr(self, name), 0))
        missing = [name for name in self.needs if name not in values]
        if missing:
            raise ValueError(
                f"The loss '{self.name}' needs {missing}, which were not passed; got "
                f"{sorted(context)}. Pass them by name, or use it in a Distiller on "
                "data that has them."
            )
        return {name: values[name] for name in (*self.needs, *self.scheduled)}


class _Reduction(keras.losses.Loss):
    """Keras's own reduction, including replica scaling, of values already computed."""

    def call(self, y_true, y_pred):
        return y_pred


def _combine(values, sample_weight, mask):
    """Multiply sample weights and a mask, expanded to the rank of the values."""
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
        # Keras's rule: valid entries are scaled up to the weight of all.
        scaled = ops.divide_no_nan(
            mask * ops.cast(ops.size(mask), mask.dtype), ops.sum(mask)
        )
        weight = scaled if weight is None else weight * scaled
    return weight
