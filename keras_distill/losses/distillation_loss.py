"""Base of every distillation loss: dtype, context, weights and reduction."""

import re
from collections.abc import Sequence
from typing import ClassVar

import keras
from keras import ops

from keras_distill._backend.configuration import arguments, call_text, own_arguments
from keras_distill.adapters.match import Match
from keras_distill.losses._masking import masks_of_sides, of_both
from keras_distill.losses._reduction import check_values, reduced
from keras_distill.losses.schedules import at_step


class DistillationLoss(keras.losses.Loss):
    r"""Base class of losses that compare a teacher's and a student's tensors.

    A loss is called as `loss(teacher, student)`, which is Keras's `(y_true, y_pred)`
    order. A method subclasses this and implements `call`, which returns one value per
    sample, `(B,)`, or one per token, `(B, L)`, for tensors of a sequence. This base
    casts to the loss's dtype, stops the teacher's gradient, passes what the loss needs,
    and averages the values of the samples with their weights, as Keras does:

    .. math::

        \frac{1}{B} \sum_{i=1}^{B} w_i \, \ell_i

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
    - `recommended_weight`: the weight of a term that has none of its own, for the sizes
      that the loss's docstring names; `kd.suggest_weights` finds one for your models.
    - `share`: how many times as long as the labels' gradient that of a term is whose
      weight is `"balanced"`. Default 1.
    - `needs`: keyword arguments that `call` takes in addition to the tensors, out of `labels`,
      `student_logits`, `teacher_logits`, `sample_ids`, `step`; `mask` and
      `teacher_mask`, the valid steps of each side, `(B, L)`, None where all are (a side
      without a mask has that of the other, if their lengths agree); `teacher_norm`,
      the standard deviation and mean, `(C,)`, that the batch normalization at the
      teacher's tap gives its channels; `student_head` and `teacher_head`, the kernel,
      the bias and whether the kernel is transposed, of the layer whose input is the
      last tap; and `memory`, the layer that `memory()` returned.
    - `labels_are_classes`: whether its labels are indices of the student's logits, so
      that `fit` checks their range.
    - `needs_one_class`: whether its labels must name one class per sample, so that `fit`
      refuses mixed labels, rows of several nonzero entries. Default False: the loss
      takes rows as they are.
    - `compares_samples`: whether the value of a sample depends on the others of the
      batch, so that it can't leave out samples whose labels are ignored.
    - `masked_scores`: the kinds of attention scores, `"scores"` and `"log_scores"`, on
      which masked keys add nothing to its value; that `call` leaves out masked queries
      is not enough. Default none: scores with a mask are refused.
    - `takes_gradients`: whether its tensors are gradients with respect to the input, so
      that a term refuses layers as taps.
    - `scheduled`: attributes that are a number or a schedule; `call` gets their value at
      the current step under the same name.

    Args:
        name: in the logs. Default: the class name in snake case.
        reduction: as in `keras.losses.Loss`. Default `"sum_over_batch_size"`.
        dtype: in which the loss is computed. Default: Keras's `floatx`.

    Example:
        >>> class ProbabilityDistance(kd.losses.DistillationLoss):
        ...     match, predicts = kd.adapters.Match.CLASSES, "classes"
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
    share: ClassVar[float] = 1.0
    needs: ClassVar[tuple[str, ...]] = ()
    labels_are_classes: ClassVar[bool] = False
    compares_samples: ClassVar[bool] = False
    needs_one_class: ClassVar[bool] = False
    masked_scores: ClassVar[tuple[str, ...]] = ()
    takes_gradients: ClassVar[bool] = False
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
        context |= masks_of_sides(self.name, teacher, student, context)
        values = self.call(teacher, student, **self._arguments(context))
        check_values(self.name, values, student)
        mask = self._mask_of(values, context["mask"], context["teacher_mask"])
        return reduced(self, values, sample_weight, mask)

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

    def check_first_batch(self, student: Sequence, teacher: Sequence) -> None:
        """Check the tensors of both sides' taps on the first batch of `fit`.

        It is called where no adapter is given, for one teacher with its layers.

        Raises:
            ValueError: they are not what the loss is made for.
        """

    def check_sample_ids(self, ids) -> None:
        """Check sample ids, a NumPy array `(B,)`, before the first step of `fit`.

        They are those of all samples if the data are arrays, else of the first batch.

        Raises:
            ValueError: they are not what the loss takes.
        """

    def cause_of_nan(self) -> str:
        """Return why a batch's value may be NaN for finite tensors, for an error."""
        return ""

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

    def __repr__(self) -> str:
        """Return the class and its arguments."""
        return call_text(type(self).__name__, own_arguments(self, DistillationLoss))

    def get_config(self) -> dict:
        own = arguments(self, DistillationLoss, *self.scheduled)
        return {**own, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**keras.saving.deserialize_keras_object(config))

    def _cast(self, tensor):
        return ops.cast(ops.convert_to_tensor(tensor), self.dtype)

    def _mask_of(self, values, mask, teacher_mask):
        """Return the mask of values per token; None for values per sample."""
        masks = [x for x in (mask, teacher_mask) if x is not None]
        if all(len(x.shape) <= len(values.shape) for x in masks):
            return of_both(mask, teacher_mask)
        if "mask" in self.needs:
            return None
        raise ValueError(
            f"The loss '{self.name}' compares whole sequences and does not take their "
            "mask, so that padding would count. Use a loss that does, such as "
            "kd.losses.SimilarityMatrix, or one of tokens, such as kd.losses.Hint; tap a "
            "layer behind the pooling; or, in a loss of your own, name 'mask' in `needs`."
        )

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
