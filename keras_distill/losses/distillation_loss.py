"""Base of every distillation loss: dtype, context, weights and reduction."""

import re
from collections.abc import Sequence
from typing import ClassVar

import keras
from keras import ops

from keras_distill import strategies
from keras_distill._backend.configuration import arguments
from keras_distill.adapters.match import Match
from keras_distill.losses._masking import fits, of_both, without_masked
from keras_distill.losses.schedules import at_step


class DistillationLoss(keras.losses.Loss):
    """Base class of losses that compare a teacher's and a student's tensors.

    A loss is called as `loss(teacher, student)`, which is Keras's `(y_true, y_pred)`
    order. A method subclasses this and implements `call`, which returns one value per
    sample, `(B,)`, or one per token, `(B, L)`, for tensors of a sequence. This base
    casts to the loss's dtype, stops the teacher's gradient, passes what the loss needs,
    and averages as Keras does: `sum_i w_i l_i / B`.

    Masked steps of a sequence are left out. Values per token are averaged over the
    tokens of the whole batch that are valid on both sides; with `reduction="sum"` they
    are summed. A loss that compares whole sequences, with one value per sample, must
    take `mask`, and leave masked steps out itself: without it, a mask is an error.

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
      `teacher_mask`, the valid steps of each side, `(B, L)`, None where all are (a side
      without a mask has that of the other, if their lengths agree); `teacher_norm`,
      the standard deviation and mean, `(C,)`, that the batch normalization at the
      teacher's tap gives its channels; `student_head` and `teacher_head`, the kernel,
      the bias and whether the kernel is transposed, of the layer whose input is tapped;
      and `memory`, the layer that `memory()` returned.
    - `labels_are_classes`: whether its labels are indices of the student's logits, so
      that `fit` checks their range.
    - `needs_one_class`: whether its labels must name one class per sample, so that `fit`
      refuses mixed labels, rows of several nonzero entries. Default False: the loss
      takes rows as they are.
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
    needs_one_class: ClassVar[bool] = False
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
            **context: the values that `needs` and `scheduled` name, and masks.

        Returns:
            A scalar, or the values themselves if the reduction is None.

        Raises:
            ValueError: the loss needs something that was not passed, does not take the
                mask that its tensors have, or returns something else than one value per
                sample or token.
        """
        teacher = keras.tree.map_structure(self._cast, teacher)
        if not self.trains_teacher_adapters:
            teacher = keras.tree.map_structure(ops.stop_gradient, teacher)
        student = keras.tree.map_structure(self._cast, student)
        context |= _masks(self.name, teacher, student, context)
        values = self.call(teacher, student, **self._arguments(context))
        _check_values(self.name, values, student)
        mask = of_both(context["mask"], context["teacher_mask"])
        if mask is not None and "mask" not in self.needs:
            _check_mask_is_taken(self.name, values, mask)
        if mask is not None and len(values.shape) >= len(mask.shape):
            # An infinite value times 0 is not 0.
            values = without_masked(values, mask)
        weight = _combine(values, sample_weight, mask, self.reduction)
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
        values = dict(context)
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


def _masks(name: str, teacher, student, context: dict) -> dict:
    """Return the mask of each side, None for tensors without steps.

    A side without a mask has that of the other, if their lengths agree.
    """
    sides = {"mask": _first(student), "teacher_mask": _first(teacher)}
    masks = dict.fromkeys(sides)
    for key, features in sides.items():
        mask = context.get(key)
        if mask is None or features is None or len(features.shape) <= len(mask.shape):
            continue
        if not fits(mask, features):
            raise ValueError(
                f"The {key} of the loss '{name}' has the shape {tuple(mask.shape)}, which "
                f"does not fit the sequence {tuple(features.shape)}. Tap layers of one "
                "length, or pass an adapter layer."
            )
        masks[key] = ops.convert_to_tensor(mask)
    for key, other in (("mask", "teacher_mask"), ("teacher_mask", "mask")):
        missing = masks[key] is None and masks[other] is not None
        if missing and sides[key] is not None and fits(masks[other], sides[key]):
            masks[key] = masks[other]
    return masks


def _first(tensors):
    return next(iter(keras.tree.flatten(tensors)), None)


def _check_values(name: str, values, student) -> None:
    """Check that a loss returned one value per sample, or per token or pixel."""
    shape, features = tuple(values.shape), tuple(_first(student).shape)
    # A size that is known where the batch's is not is none of the batch.
    agree = not shape or shape[0] in (None, features[0])
    rest = zip(shape[1:], features[1:], strict=False)
    agree &= all(a == b or None in (a, b) for a, b in rest)
    if not agree or not 1 <= len(shape) <= max(1, len(features) - 1):
        raise ValueError(
            f"The loss '{name}' returned values of the shape {shape} for tensors "
            f"{features}: its `call` must return one value per sample, (B,), or one per "
            "token, (B, L), so that sample weights, masks and replicas count right. "
            "Reduce the last axes only: ops.mean(values, axis=-1), for example."
        )


def _check_mask_is_taken(name: str, values, mask) -> None:
    """Check that a loss that does not take a mask has values that it applies to."""
    if len(values.shape) < len(mask.shape):
        raise ValueError(
            f"The loss '{name}' compares whole sequences and does not take their mask, so "
            "that padding would count. Use a loss that does, such as "
            "kd.losses.SimilarityMatrix, or one of tokens, such as kd.losses.Hint; tap a "
            "layer behind the pooling; or, in a loss of your own, name 'mask' in `needs`."
        )


def _combine(values, sample_weight, mask, reduction):
    """Multiply sample weights and a mask, expanded to the rank of the values."""
    rank = len(values.shape)
    weight = None
    if sample_weight is not None:
        weight = ops.cast(ops.convert_to_tensor(sample_weight), values.dtype)
        while len(weight.shape) > rank:
            weight = ops.mean(weight, axis=-1)
        weight = _expanded(weight, rank)
    if mask is not None and len(mask.shape) <= rank:
        wide = keras.backend.result_type(values.dtype, "float32")
        mask = ops.cast(mask, wide)
        if reduction in ("sum_over_batch_size", "mean"):
            mask = _scaled(mask)
        mask = _expanded(ops.cast(mask, values.dtype), rank)
        weight = mask if weight is None else weight * mask
    return weight


def _scaled(mask):
    """Scale valid entries up to the weight of all, as Keras does, over all replicas."""
    counts = ops.stack([ops.cast(ops.size(mask), mask.dtype), ops.sum(mask)])
    size, valid = ops.unstack(strategies.mean_count(counts))
    return ops.divide_no_nan(mask * size, valid)


def _expanded(tensor, rank: int):
    while len(tensor.shape) < rank:
        tensor = ops.expand_dims(tensor, axis=-1)
    return tensor
