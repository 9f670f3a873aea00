"""Terms: one loss between taps of student and teacher, and its part in the total."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import adapters, taps
from keras_distill.distillers import checks
from keras_distill.distillers.inputs import weight_for
from keras_distill.losses.base import DistillationLoss, at_step
from keras_distill.taps import Tap


@keras.saving.register_keras_serializable(package="keras_distill")
class Term:
    """One loss of a distiller: what is compared, where, and how much it counts.

    Args:
        loss: a `kd.losses.DistillationLoss`.
        student: what the loss sees of the student: `"logits"`, a layer path, a
            `kd.Tap`, or a tuple of these for a loss that compares several layers.
            Default `"logits"`.
        teacher: the same of the teacher.
        weight: a number >= 0 or a schedule of steps. Default: the loss's
            `recommended_weight`.
        adapter: `"auto"` (default) infers from the shapes what makes student fit
            teacher; None for none; a `keras.layers.Layer` for the student's side; for
            a tuple of taps also a tuple of these.
        name: in the logs. Default: the loss's name.

    Raises:
        TypeError: the loss is not a distillation loss, or the adapter not a layer.
        ValueError: a negative weight, or another number of taps than the loss compares.

    Example:
        >>> kd.Term(kd.losses.Hint(), student="stack2", teacher="stack3", weight=1.0)
    """

    def __init__(
        self,
        loss: DistillationLoss,
        student: str | Tap | Sequence[str | Tap] = taps.LOGITS,
        teacher: str | Tap | Sequence[str | Tap] = taps.LOGITS,
        weight: float | LearningRateSchedule | None = None,
        adapter: str | keras.Layer | Sequence | None = "auto",
        name: str | None = None,
    ):
        checks.is_distillation_loss(loss)
        self.loss = loss
        self.name = name or loss.name
        checks.is_log_name(self.name)
        self.student = taps.as_taps(student)
        self.teacher = taps.as_taps(teacher)
        checks.has_taps(self.name, loss.taps, self.student, self.teacher)
        weight = loss.recommended_weight if weight is None else weight
        self.weight = checks.not_negative(weight, f"The weight of term '{self.name}'")
        self.adapter = adapter
        several = isinstance(adapter, (tuple, list))
        self.adapters = tuple(adapter) if several else (adapter,) * loss.taps
        checks.are_adapters(self.name, self.adapters, loss.taps, several)

    def get_config(self) -> dict:
        """Give the arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "loss": serialize(self.loss),
            "student": [tap.get_config() for tap in self.student],
            "teacher": [tap.get_config() for tap in self.teacher],
            "weight": serialize(self.weight),
            "adapter": serialize(self.adapter),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict) -> Term:
        """Make a term from its arguments."""
        deserialize = keras.saving.deserialize_keras_object
        return cls(
            loss=deserialize(config["loss"]),
            student=[Tap(**tap) for tap in config["student"]],
            teacher=[Tap(**tap) for tap in config["teacher"]],
            weight=deserialize(config["weight"]),
            adapter=deserialize(config["adapter"]),
            name=config["name"],
        )


class BoundTerm(keras.Layer):
    """A term at work: its variables, adapters and running mean.

    `weight` and what the loss calls moving (`temperature`) are variables: a schedule
    sets them at each step, and a callback may `assign` to those that are numbers.

    Args:
        term: what it carries out.
    """

    def __init__(self, term: Term):
        super().__init__(name=term.name, dtype="float32", autocast=False)
        self.term = term
        self.mean = keras.metrics.Mean(name=term.name)
        self.weight = moving_variable(self, "weight", term.weight)
        for name in term.loss.moving:
            value = getattr(term.loss, name)
            setattr(self, name, moving_variable(self, name, value))

    def bind(self, student_shapes: Sequence, teacher_shapes: Sequence) -> None:
        """Make and build the adapters, and check that what comes out is comparable.

        Args:
            student_shapes: of each student tap, batch first.
            teacher_shapes: of each teacher tap.

        Raises:
            ValueError: the class counts differ, or no adapter joins the shapes.
        """
        term = self.term
        pairs = zip(term.adapters, student_shapes, teacher_shapes, strict=True)
        try:
            sides = [self._adapters(*pair) for pair in pairs]
            self.student_adapters = [student for student, _ in sides]
            self.teacher_adapters = [teacher for _, teacher in sides]
            shapes = list(zip(student_shapes, teacher_shapes, strict=True))
            fitted = [
                (_through(own, student), _through(other, teacher))
                for (own, other), (student, teacher) in zip(sides, shapes, strict=True)
            ]
            checks.agree(term.loss.match, fitted)
            checks.runs(term.loss, fitted)
        except ValueError as error:
            raise ValueError(
                f"Term '{term.name}', student {' and '.join(map(repr, map(str, term.student)))}"
                f" with teacher {' and '.join(map(repr, map(str, term.teacher)))}: {error}"
            ) from error
        self.built = True

    def _adapters(self, adapter, student_shape, teacher_shape):
        match = self.term.loss.match
        if adapter is None or match == "classes":
            return None, None
        if adapter == "auto":
            student, teacher = adapters.infer(student_shape, teacher_shape, match)
        else:
            student, teacher = adapter, None
            if getattr(student, "target_shape", student_shape) is None:
                student.target_shape = tuple(teacher_shape)
        for layer, shape in ((student, student_shape), (teacher, teacher_shape)):
            if layer is not None and not layer.built:
                layer.build(shape)
        return student, teacher

    def advance(self, step) -> None:
        """Move what a schedule moves to its value at this step."""
        advance(self.weight, self.term.weight, step)
        for name in self.term.loss.moving:
            advance(getattr(self, name), getattr(self.term.loss, name), step)

    def compare(self, features: dict, knowledge: dict, teacher, sample_weight, context):
        """Give the term's loss over the batch, before its weight.

        Args:
            features: the student's tensors by tap.
            knowledge: the teacher's, as the teacher gave them.
            teacher: turns knowledge of the output into logits.
            sample_weight: `(B,)`, `(B, L)` or None.
            context: what losses may need beside the tensors.
        """
        loss = self.term.loss
        moving = {
            name: ops.convert_to_tensor(getattr(self, name)) for name in loss.moving
        }
        temperature = moving.get("temperature", 1.0)
        known = [
            teacher.logits(knowledge[tap], temperature)
            if tap.is_logits
            else knowledge[tap]
            for tap in self.term.teacher
        ]
        seen = [features[tap] for tap in self.term.student]
        mask = taps.mask_of(seen[0])
        sample_weight = weight_for(sample_weight, self.term.student[0])
        seen = [_apply(a, x) for a, x in zip(self.student_adapters, seen, strict=True)]
        known = [
            _apply(a, x) for a, x in zip(self.teacher_adapters, known, strict=True)
        ]
        if loss.taps == 1:
            (seen,), (known,) = seen, known
        needs = {name: context[name] for name in loss.needs if name in context}
        return loss(known, seen, sample_weight, **{**needs, **moving, "mask": mask})


def moving_variable(layer: keras.Layer, name: str, value) -> keras.Variable:
    """Make the variable that holds a number, or a schedule's value, beside the weights."""
    return layer.add_weight(
        shape=(),
        initializer=keras.initializers.Constant(float(at_step(value, 0))),
        trainable=False,
        dtype="float32",
        name=name,
        aggregation="only_first_replica",
    )


def advance(variable: keras.Variable, value, step) -> None:
    """Set a variable to its schedule's value; leave it where the value is a number."""
    if isinstance(value, LearningRateSchedule):
        variable.assign(ops.cast(value(step), variable.dtype))


def _apply(adapter, tensor):
    return tensor if adapter is None else adapter(tensor)


def _through(adapter, shape):
    return tuple(shape) if adapter is None else adapter.compute_output_shape(shape)
