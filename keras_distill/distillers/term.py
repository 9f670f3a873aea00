"""Terms: one loss between taps of student and teacher, and its part in the total."""

from collections.abc import Callable, Sequence

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill._backend.configuration import summary
from keras_distill.distillers import adapter_checks, mask_checks, term_checks
from keras_distill.distillers.context import AUTO
from keras_distill.distillers.kept_compile import copied
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.taps import Tap, as_taps


@keras.saving.register_keras_serializable(package="keras_distill")
class Term:
    """One loss of a distiller: what is compared, where, and how much it counts.

    Args:
        loss: a `kd.losses.DistillationLoss`.
        student: the student's tensor: `"logits"`, its output; a layer path; a `kd.Tap`;
            or a tuple of these for a loss that compares several layers. Default: the
            output.
        teacher: likewise for the teacher. A loss that does not compare it has none.
        weight: a number >= 0, a schedule of steps, or `"balanced"`: with which the term's
            gradient by the student's weights is `loss.share` times as long as that of
            the labels, measured once as `fit` begins. Default: the loss's
            `recommended_weight`.
        adapter: `"auto"` (default) infers from the shapes what fits the student to the
            teacher; None for no adapter; a `keras.layers.Layer` for the student's side;
            for a tuple of taps also a tuple of these.
        name: in the logs. Default: the loss's name.
        mask: which steps of a sequence count: `"auto"` (default), the Keras mask of the
            tensor, or else the input of the model that is called `padding_mask`, or
            `encoder_padding_mask` for tensors of an encoder; None for all steps; the key
            of another input of the model or of the batch, or a function from the model's
            inputs to a mask, `(B, L)`, not 0 for steps that count. A pair of these for
            student and teacher.
        teacher_adapter: a `keras.layers.Layer` for the teacher's side, without trainable
            weights unless the loss trains it, as one that drops a class token; for a
            tuple of taps a tuple of layers and None. Default: none.
        shared_classes: number of classes, the first of both sides' logits, that are
            compared, as where vocabularies are padded to different sizes. Default: all.

    Raises:
        TypeError: the adapter is not a layer, or the mask none of these.
        ValueError: the loss is not a distillation loss (a bare function, say), the weight
            is negative or not finite, there are more or fewer taps than the loss
            compares, or it compares gradients and taps layers.

    Example:
        >>> kd.Term(kd.losses.Hint(), student="stack2", teacher="stack3", weight=1.0)
    """

    def __init__(
        self,
        loss: DistillationLoss,
        student: str | Tap | Sequence[str | Tap] = Tap.output(),  # noqa: B008
        teacher: str | Tap | Sequence[str | Tap] = Tap.output(),  # noqa: B008
        weight: float | LearningRateSchedule | str | None = None,
        adapter: str | keras.Layer | Sequence | None = "auto",
        name: str | None = None,
        mask: str | int | Callable | Sequence | None = AUTO,
        teacher_adapter: keras.Layer | Sequence | None = None,
        shared_classes: int | None = None,
    ):
        term_checks.check_loss(loss)
        self.loss = loss
        self.name = name or loss.name
        term_checks.check_log_name(self.name)
        self.student = as_taps(student)
        self.teacher = as_taps(teacher if loss.compares_teacher else ())
        term_checks.check_taps(self.name, loss, self.student, self.teacher)
        both_sides = *self.student, *self.teacher
        mask_checks.check_takes_scores(self.name, loss, both_sides)
        term_checks.check_gradients(self.name, loss, both_sides)
        self.weight = loss.recommended_weight if weight is None else weight
        what = f"The weight of term '{self.name}'"
        term_checks.check_weight(self.weight, what)
        self.adapter = adapter
        several = isinstance(adapter, (tuple, list))
        self.adapters = tuple(adapter) if several else (adapter,) * loss.taps
        adapter_checks.check_adapters(self.name, self.adapters, loss.taps, several)
        self.mask = mask
        is_pair = isinstance(mask, (tuple, list))
        self.masks = tuple(mask) if is_pair else (mask, mask)
        mask_checks.check_masks(self.name, self.masks)
        self.teacher_adapter = teacher_adapter
        several = isinstance(teacher_adapter, (tuple, list))
        self.teacher_adapters = tuple(teacher_adapter if several else [teacher_adapter])
        if teacher_adapter is None:
            self.teacher_adapters *= len(self.teacher)
        adapter_checks.check_teacher_adapters(
            self.name, self.teacher_adapters, self.teacher
        )
        term_checks.check_shared_classes(self, shared_classes)
        self.shared_classes = None if shared_classes is None else int(shared_classes)

    def __repr__(self) -> str:
        """Return loss, taps and weight; the name where it is not the loss's."""
        texts = [repr(self.loss)]
        for side, taps in (("student", self.student), ("teacher", self.teacher)):
            if taps:
                texts.append(f"{side}={', '.join(map(str, taps))!r}")
        texts.append(f"weight={summary(self.weight)}")
        if self.name != self.loss.name:
            texts.append(f"name={self.name!r}")
        return f"{type(self).__name__}({', '.join(texts)})"

    def for_task(self, task: str) -> "Term":
        """Return the term itself: only a default term follows the task."""
        del task
        return self

    def copy(
        self, teacher: Sequence[Tap] | None = None, name: str | None = None
    ) -> "Term":
        """Return a term of the same loss whose adapters are layers of its own.

        Args:
            teacher: other taps of the teacher. Default: the same.
            name: another name. Default: the same.
        """
        return type(self)(
            self.loss,
            self.student,
            self.teacher if teacher is None else teacher,
            self.weight,
            copied(self.adapter),
            name or self.name,
            self.mask,
            keras.tree.map_structure(_copied_if_weightless, self.teacher_adapter),
            self.shared_classes,
        )

    def uses_labels(self) -> bool:
        """Whether the loss or a tapped gradient depends on the labels."""
        taps = [*self.student, *self.teacher]
        return "labels" in self.loss.needs or any(tap.is_gradient for tap in taps)

    def get_config(self) -> dict:
        serialize = keras.saving.serialize_keras_object
        return {
            "loss": serialize(self.loss),
            "student": [tap.get_config() for tap in self.student],
            "teacher": [tap.get_config() for tap in self.teacher],
            "weight": serialize(self.weight),
            "adapter": serialize(self.adapter),
            "name": self.name,
            "mask": serialize(self.mask),
            "teacher_adapter": serialize(self.teacher_adapter),
            "shared_classes": self.shared_classes,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Term":
        deserialize = keras.saving.deserialize_keras_object
        return cls(
            loss=deserialize(config["loss"]),
            student=[Tap.from_config(tap) for tap in config["student"]],
            teacher=[Tap.from_config(tap) for tap in config["teacher"]],
            weight=deserialize(config["weight"]),
            adapter=deserialize(config["adapter"]),
            name=config["name"],
            mask=deserialize(config.get("mask", AUTO)),
            teacher_adapter=deserialize(config.get("teacher_adapter")),
            shared_classes=config.get("shared_classes"),
        )


def _copied_if_weightless(layer):
    """Return a copy of a layer; one of frozen weights, which a copy would lose, itself."""
    return layer if layer is not None and layer.weights else copied(layer)
