"""A term at work inside a distiller."""

import itertools
from collections.abc import Sequence

import keras
from keras import ops

from keras_distill.adapters import AveragePool, Match, chain
from keras_distill.data.selection import part_of_output
from keras_distill.distillers import adapter_checks, mask_checks
from keras_distill.distillers.context import PROVIDERS, Context, check_shared
from keras_distill.distillers.ignored import weight_of_valid
from keras_distill.distillers.masked_adapters import (
    adapted,
    adapter_shape,
    build_adapter,
    check_counts_no_padding,
    counts_padding,
)
from keras_distill.distillers.mixed_labels import without_mixed
from keras_distill.distillers.term import Term
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.schedules import advance, scheduled_variable
from keras_distill.losses.temperature import HIGH, is_high
from keras_distill.taps.tracing import trace
from keras_distill.teachers.base_teacher import CLASSES


class BoundTerm(keras.Layer):
    """A term at work: its variables and adapters.

    `weight` and what the loss schedules (`temperature`) are variables: a schedule sets
    them at each step, and a callback may `assign` to those that are numbers.

    Args:
        term: what it computes.
    """

    def __init__(self, term: Term):
        super().__init__(name=term.name, dtype="float32", autocast=False)
        self.term = term
        # What the student is known to predict, and what outputs are taken for.
        self.task, self.predicts = None, term.loss.predicts or CLASSES
        # Whether the number of outputs alone says what they are.
        self.is_guess = False
        self.weight = scheduled_variable(self, "weight", term.weight)
        for name in term.loss.scheduled:
            value = getattr(term.loss, name)
            setattr(self, name, scheduled_variable(self, name, value))

    def bind(
        self,
        student_shapes: Sequence,
        teacher_shapes: Sequence,
        student_sizes: Sequence | None = None,
        teacher_sizes: Sequence | None = None,
    ) -> None:
        """Create and build the adapters, and check that their outputs can be compared.

        Args:
            student_shapes: of each student tap, batch first, None for sizes that vary.
            teacher_shapes: of each teacher tap.
            student_sizes: the student's shapes of one batch. Default: `student_shapes`.
            teacher_sizes: the teacher's.

        Raises:
            ValueError: the class counts differ, or no adapter joins the shapes.
        """
        term = self.term
        try:
            shapes = self._shared(student_shapes, teacher_shapes)
            sizes = self._shared(
                student_sizes or student_shapes, teacher_sizes or teacher_shapes
            )
            self._create_adapters(*shapes)
            self._check(*self._after_adapters(*sizes))
            self._find_padding(*sizes)
            self.memory = term.loss.memory()
            build_adapter(self.memory, self._after_adapters(*shapes)[0][0])
        except ValueError as error:
            of_student, of_teacher = (
                " and ".join(f"'{tap}'" for tap in side)
                for side in (term.student, term.teacher)
            )
            raise ValueError(
                f"Term '{term.name}', student {of_student} with teacher {of_teacher}: "
                f"{error}"
            ) from error
        self.built = True

    def _shared(self, student: Sequence, teacher: Sequence) -> tuple[list, list]:
        """Return shapes as tuples, of logits with the classes that are compared."""
        sides = [tuple(shape) for shape in student], [tuple(shape) for shape in teacher]
        count = self.term.shared_classes
        if count is None or self.term.loss.match is not Match.CLASSES:
            return sides
        for of_student, of_teacher in itertools.zip_longest(*sides, fillvalue=(None,)):
            check_shared(self.term, of_student[-1], of_teacher[-1])
        return tuple([(*shape[:-1], count) for shape in side] for side in sides)

    def _create_adapters(self, student_shapes: Sequence, teacher_shapes: Sequence):
        """Create the adapters of both sides, as given or as the loss infers them."""
        loss, given = self.term.loss, self.term.adapters
        joint = None
        if all(adapter == "auto" for adapter in given):
            joint = loss.joint_adapter(student_shapes, teacher_shapes)
            build_adapter(joint, student_shapes)
        if joint is not None:
            given = [None] * len(given)
        student, teacher = [], list(self.term.teacher_adapters)
        for layer, shape in zip(teacher, teacher_shapes, strict=True):
            build_adapter(layer, shape)
        if not loss.trains_teacher_adapters:
            adapter_checks.check_frozen(self.term.name, teacher)
        teacher_shapes = [
            adapter_shape(a, shape)
            for a, shape in zip(teacher, teacher_shapes, strict=True)
        ]
        for index, (adapter, shape) in enumerate(
            zip(given, student_shapes, strict=True)
        ):
            target = teacher_shapes[index] if loss.compares_teacher else None
            if adapter != "auto":
                student.append(_given(adapter, shape, target))
            elif target is None:
                student.append(None)
            else:
                mask_checks.check_scores(self.term.student[index], shape, target)
                of_student, of_teacher = _inferred(loss, shape, target)
                student.append(of_student)
                teacher[index] = chain([teacher[index], of_teacher])
        # Set as wholes: Keras finds the layers in a list when the list is set.
        self.joint_adapter = joint
        self.student_adapters, self.teacher_adapters = student, teacher

    def _after_adapters(self, student_shapes, teacher_shapes) -> tuple[list, list]:
        """Return the shapes of both sides' tensors after their adapters."""
        student, teacher = (
            [adapter_shape(a, shape) for a, shape in zip(*side, strict=True)]
            for side in (
                (self.student_adapters, student_shapes),
                (self.teacher_adapters, teacher_shapes),
            )
        )
        return adapter_shape(self.joint_adapter, student), teacher

    def _check(self, student: Sequence, teacher: Sequence) -> None:
        """Check that the loss can compare tensors of these shapes."""
        loss = self.term.loss
        if loss.compares_teacher:
            pairs = zip(student, teacher, strict=not loss.several_teachers)
            for shapes in pairs:
                loss.match.check(*shapes)
        pooled = zip(self.student_adapters, student, strict=False)
        if loss.match is Match.CLASSES and "labels" in loss.needs:
            for layer, shape in pooled:
                _check_labels_fit(layer, shape)
        _try(loss, student, teacher)

    def _find_padding(self, *sizes: Sequence) -> None:
        """Find which of the given adapters would count the padding of a sequence."""
        term = self.term
        sides = (
            (term.adapters, self.student_adapters, sizes[0]),
            (term.teacher_adapters, self.teacher_adapters, sizes[1]),
        )
        self.counts_padding = [
            [
                isinstance(own, keras.Layer) and counts_padding(layer, shape)
                for own, layer, shape in zip(*side, strict=True)
            ]
            for side in sides
        ]

    def _adapt(self, side: int, tensors: Sequence, mask, training: bool) -> list:
        """Return the tensors of a side, 0 for the student's, after their adapters."""
        layers = (self.student_adapters, self.teacher_adapters)[side]
        tensors = [
            adapted(layer, x, mask, training)
            for layer, x in zip(layers, tensors, strict=True)
        ]
        mask_checks.check_mask(self.name, mask, tensors)
        for layer, counts in zip(layers, self.counts_padding[side], strict=True):
            check_counts_no_padding(self.name, layer, mask, counts)
        return tensors

    def advance(self, step) -> None:
        """Set scheduled weights and temperatures to their values at this step."""
        advance(self.weight, self.term.weight, step)
        for name in self.term.loss.scheduled:
            advance(getattr(self, name), getattr(self.term.loss, name), step)

    def check_scheduled(self) -> None:
        """Check that no callback assigned a temperature that the loss was not built for."""
        loss = self.term.loss
        if "temperature" not in loss.scheduled or is_high(loss.temperature):
            return
        value = float(ops.convert_to_numpy(self.temperature))
        if value > HIGH:
            raise ValueError(
                f"The temperature of term '{self.name}' was {loss.temperature:g}, and "
                f"{value:g} was assigned to it: losses at more than {HIGH:g} are computed "
                "otherwise. Pass the loss a temperature above it, or a schedule."
            )

    def compare(self, context: Context, sample_weight):
        """Return the term's loss over the batch, before its weight.

        Args:
            context: of the step.
            sample_weight: `(B,)`, `(B, L)` or None; of each output for several.
        """
        term, loss = self.term, self.term.loss
        scheduled = {
            name: ops.convert_to_tensor(getattr(self, name)) for name in loss.scheduled
        }
        temperature = scheduled.get("temperature", 1.0)
        compares_classes = loss.match is Match.CLASSES
        classes = term.shared_classes if compares_classes else None
        student = [context.features[tap] for tap in term.student]
        if classes is not None:
            student = [x[..., :classes] for x in student]
        teacher = [
            context.teacher_tensor(tap, temperature, self.predicts, classes)
            for tap in term.teacher
        ]
        values = context.values(self)
        masks = values.get("mask"), values.get("teacher_mask")
        mask_checks.check_masked_scores(term, masks)
        training = context.training
        trains = training and loss.trains_teacher_adapters
        student = self._adapt(0, student, masks[0], training)
        teacher = self._adapt(1, teacher, masks[1], trains)
        student = adapted(self.joint_adapter, student, None, training)
        teacher, student = loss.arrange(teacher, student)
        weight = part_of_output(sample_weight, term.student[0], context.output_names)
        if _is_per_token(weight) and context.is_apart_from_labels(term.student[0]):
            weight = None
        valid = context.valid_samples(term.student[0])
        weight = weight_of_valid(weight, valid, loss.reduction)
        value = loss(teacher, student, weight, **values, **scheduled)
        last = keras.tree.flatten(student)[-1]
        return without_mixed(loss, value, values.get("labels"), last)


def _is_per_token(weight) -> bool:
    return weight is not None and len(weight.shape) > 1 and weight.shape[1] != 1


def _check_labels_fit(adapter, shape) -> None:
    """Check that the student's logits were not pooled to fewer pixels than labels have."""
    if isinstance(adapter, AveragePool):
        raise ValueError(
            f"the loss takes labels, which the student's logits no longer fit once they "
            f"are pooled to the teacher's {shape}. Enlarge the teacher's, by "
            "teacher_adapter=keras.layers.UpSampling2D(2) for example, or use a loss "
            "without labels."
        )


def _try(loss, student: Sequence, teacher: Sequence) -> None:
    """Run a loss on the adapted shapes, where that needs nothing of a step."""
    if all(PROVIDERS[name].is_early for name in loss.needs):
        specs = [[keras.KerasTensor(shape) for shape in x] for x in (student, teacher)]
        trace(lambda sides: loss(*loss.arrange(sides[1], sides[0])), specs)


def _inferred(loss, student_shape, teacher_shape):
    """Return the layers, built, that the loss infers between two shapes."""
    has_own = type(loss).adapters is not DistillationLoss.adapters
    if has_own and None in (student_shape[-1], teacher_shape[-1]):
        raise ValueError(
            f"{type(loss).__name__} creates layers for a known number of channels, the "
            f"last axis; got the student's shape {student_shape} and the teacher's "
            f"{teacher_shape}. Tap layers whose channels are known, or use a loss without "
            "such layers, such as kd.losses.SimilarityMatrix."
        )
    sides = loss.adapters(student_shape, teacher_shape)
    for layer, shape in zip(sides, (student_shape, teacher_shape), strict=True):
        build_adapter(layer, shape)
    return sides


def _given(layer, student_shape, teacher_shape):
    """Return a user's layer, built; one without a target shape gets the teacher's."""
    if getattr(layer, "target_shape", student_shape) is None:
        layer.target_shape = teacher_shape
    build_adapter(layer, student_shape)
    return layer
