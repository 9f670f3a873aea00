"""The distiller: a student that `fit` trains on labels and on a teacher's knowledge."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import taps
from keras_distill.adapters import Match
from keras_distill.data.selection import Selection, check_parts, select
from keras_distill.distillers import shapes
from keras_distill.distillers import term_checks as checks
from keras_distill.distillers.bound_term import BoundTerm
from keras_distill.distillers.part_means import PartMeans
from keras_distill.distillers.step import DistillationStep
from keras_distill.distillers.term import Term
from keras_distill.losses import SoftTarget
from keras_distill.losses.schedules import scheduled_variable
from keras_distill.taps import heads, tracing
from keras_distill.teachers.ensemble import as_teacher
from keras_distill.teachers.teacher import Teacher
from keras_distill.training.fit import Fitting


@keras.saving.register_keras_serializable(package="keras_distill")
class Distiller(DistillationStep, Fitting, keras.Model):
    """Train a student on labels and on what a teacher knows.

    One step runs the teacher once, in inference form and outside the gradient, and the
    student once (once more for mirrored taps); each term compares tensors of the two:

        total = label_weight * label_loss + sum_i weight_i * term_i + regularisation

    `label_loss` is the loss given to `compile`; regularisation is the student's L2 and
    `add_loss`, once and at full strength. The logs show the total as `loss` and every
    part by its name, before its weight. `evaluate` and `predict` are the student's
    alone. The teacher is left as it was found and is in no file of the distiller.

    Args:
        student: the `keras.Model` to train. It ends as a plain Keras model,
            `distiller.student`.
        teacher: a built `keras.Model`, a `kd.Teacher` or a `kd.EnsembleTeacher`.
        terms: what to learn from the teacher. Default: soft targets at temperature 4.
        label_weight: of the compiled loss, a number >= 0 or a schedule of steps.
            Default 1. Held in a variable; a callback may `assign` to it.
        student_inputs: the student's part of the batch's inputs: a key, an index, a
            list of these, or a layer such as `keras.layers.Resizing`. Default: all.
        teacher_inputs: the teacher's part.
        sample_ids: key or index of the sample ids in the inputs, for losses that need
            them. Default: none.
        name: model name.

    Raises:
        TypeError: student, teacher or a term is of another kind.
        ValueError: a tap that does not exist, shapes that no adapter joins, other class
            counts, probabilities in place of logits, a teacher that is not built or is
            the student, negative weights, two terms of one name.

    Example:
        >>> distiller = kd.Distiller(student, teacher, terms=[
        ...     kd.Term(kd.losses.SoftTarget(temperature=4.0), weight=0.9),
        ...     kd.Term(kd.losses.Hint(), student="stack2", teacher="stack3"),
        ... ], label_weight=0.1)
        >>> distiller.compile(
        ...     "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> distiller.fit(train, epochs=20)
        >>> distiller.student.save("student.keras")

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | Teacher | None,
        *,
        terms: Sequence[Term] | None = None,
        label_weight: float | LearningRateSchedule = 1.0,
        student_inputs: Selection = None,
        teacher_inputs: Selection = None,
        sample_ids: str | int | None = None,
        name: str | None = None,
    ):
        checks.is_student(student)
        super().__init__(name=name, dtype=student.dtype_policy, autocast=False)
        terms = [Term(SoftTarget())] if terms is None else list(terms)
        checks.are_terms(terms)
        self.student = student
        self.student_inputs = student_inputs
        self.teacher_inputs = teacher_inputs
        self.sample_ids = sample_ids
        self.terms = {term.name: BoundTerm(term) for term in terms}
        self.student_taps = shapes.taps_of("student", terms)
        self.teacher_taps = shapes.taps_of("teacher", terms)
        self.label_source = checks.not_negative(label_weight, "label_weight")
        self.label_weight = scheduled_variable(self, "label_weight", label_weight)
        self.part_means = PartMeans(["loss", *self.part_names()])
        self.shapes = self.classes = self.teacher = self.followers = None
        self.gives_probabilities = False
        if teacher is not None:
            self.set_teacher(teacher)

    def set_teacher(self, teacher: keras.Model | Teacher) -> None:
        """Give the teacher, as a distiller that was loaded from a file needs it again.

        On JAX a compiled step holds the teacher's weights: set the teacher again when
        they have changed.

        Args:
            teacher: a built `keras.Model`, a `kd.Teacher` or a `kd.EnsembleTeacher`.

        Raises:
            TypeError, ValueError: as in the constructor.

        Example:
            >>> distiller = keras.saving.load_model("distiller.keras")
            >>> distiller.set_teacher(teacher)
            >>> distiller.fit(train, initial_epoch=10, epochs=20)
        """
        teacher = as_teacher(teacher)
        checks.different_models(self.student, teacher)
        teacher.can_teach([bound.term for bound in self.terms.values()])
        self.teacher = teacher
        self.followers = teacher.followers
        # A step that is compiled already holds the old one.
        self.train_function = None
        student_spec = tracing.input_of(self.student)
        teacher_spec = tracing.input_of(teacher.models[0]) if teacher.models else None
        if student_spec is not None and teacher_spec is not None:
            self._bind(student_spec, teacher_spec)

    @property
    def output_names(self) -> list[str]:
        """Give the student's output names, by which losses and metrics are keyed."""
        return self.student.output_names

    @property
    def losses(self) -> list:
        """Give the student's penalties and the adapters', not those of a follower."""
        # On JAX Keras puts those of a run that is over in their place.
        if self._losses_override:
            return super().losses
        adapters = (p for bound in self.terms.values() for p in bound.losses)
        return [*self.student.losses, *adapters]

    def get_metrics_result(self) -> dict:
        """Give what an evaluation logs; the parts of the loss are those of training."""
        found = super().get_metrics_result()
        del found[self.part_means.name]
        return found

    def means(self, training: bool) -> dict:
        """Give the running means of the logs.

        Args:
            training: with the parts of the loss, else as in an evaluation.
        """
        found = self.get_metrics_result()
        if training:
            found |= self.part_means.by_name()
            if getattr(self, "loss", None) is None:
                del found["label_loss"]
        return found

    def call(self, inputs, training=None):
        """Predict as the student does."""
        if not self.built and self.teacher is not None:
            self.bind_to(inputs)
        return self.student(select(inputs, self.student_inputs), training=training)

    def can_fit(self, batch) -> None:
        """Check what is there before training.

        Args:
            batch: `(x, y, ...)`, all of it if the data are arrays; or None.
        """
        checks.can_train(self.teacher)
        loss = getattr(self, "loss", None)
        if batch is not None:
            first_x, first_y, _ = keras.utils.unpack_x_y_sample_weight(batch)
            check_parts(
                first_x, self.student_inputs, self.teacher_inputs, self.sample_ids
            )
            if not self.built:
                self.bind_to(first_x)
            self.can_take(first_y, loss)
        elif not self.gives_probabilities:
            checks.takes_logits(loss)
        checks.are_prepared(bound.term for bound in self.terms.values())

    def can_take(self, labels, loss) -> None:
        """Check labels, or that there are none, against terms and a loss.

        Args:
            labels: of a batch, or None.
            loss: as `compile` takes it, or None.

        Raises:
            ValueError: labels are missing or outside the classes, or the loss takes
                probabilities and the student gives logits.
        """
        checks.labels_fit(labels, self.classes, loss)
        terms = [bound.term for bound in self.terms.values()]
        checks.labels_fit_terms(labels, self.classes, terms)
        if not self.gives_probabilities:
            checks.takes_logits(loss)

    def own_callbacks(self) -> list:
        """Give the callbacks that stand before the user's, the teacher's among them."""
        return [*super().own_callbacks(), *self.teacher.callbacks()]

    def part_names(self) -> list[str]:
        """Give the names of the parts of the loss in the logs."""
        return ["label_loss", *self.terms]

    def replicated_layers(self) -> list[keras.Layer]:
        """Give the layers whose moving means are to be alike on all replicas."""
        adapters = [
            (bound.student_adapters, bound.teacher_adapters)
            for bound in self.terms.values()
        ]
        of_teacher = self.teacher and self.teacher.replicated
        found = [self.student, of_teacher, *keras.tree.flatten(adapters)]
        return [layer for layer in found if layer is not None]

    def get_config(self) -> dict:
        """Give the arguments, without the teacher."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "student": serialize(self.student),
            "terms": [serialize(bound.term) for bound in self.terms.values()],
            "label_weight": serialize(self.label_source),
            "student_inputs": serialize(self.student_inputs),
            "teacher_inputs": serialize(self.teacher_inputs),
            "sample_ids": self.sample_ids,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> Distiller:
        """Make a distiller that predicts, and trains once it has a teacher again."""
        config = keras.saving.deserialize_keras_object(config, custom_objects)
        return cls(config.pop("student"), None, **config)

    def get_build_config(self) -> dict | None:
        """Give the shapes of the taps, from which adapters are built."""
        return self.shapes and {"shapes": self.shapes}

    def build_from_config(self, config: dict) -> None:
        """Build the adapters as they were."""
        self._bind_shapes(config["shapes"])

    def with_terms(
        self, terms: Sequence[Term], label_weight: float | LearningRateSchedule = 1.0
    ) -> Distiller:
        """Make another distiller of the same student, teacher and inputs.

        Args:
            terms: what it learns from the teacher.
            label_weight: of the loss that it is compiled with.

        Example:
            >>> first = distiller.with_terms([hint], label_weight=0.0)
        """
        return Distiller(
            self.student,
            self.teacher,
            terms=terms,
            label_weight=label_weight,
            student_inputs=self.student_inputs,
            teacher_inputs=self.teacher_inputs,
            sample_ids=self.sample_ids,
        )

    def bind_to(self, x) -> None:
        """Make the adapters, which a student of no known inputs has from a batch.

        Args:
            x: the inputs of a batch.

        Raises:
            ValueError: as in the constructor.
        """
        self._bind(
            tracing.trace(lambda x: select(x, self.student_inputs), x),
            tracing.trace(lambda x: select(x, self.teacher_inputs), x),
        )

    def _bind(self, student_x, teacher_x) -> None:
        """Find the shape of each tap without computing; check both nets; make adapters."""
        outputs, last_layer = taps.outline(self.student, student_x)
        self.classes = getattr(outputs, "shape", (None,))[-1]
        self.gives_probabilities = heads.ends_in_probabilities(last_layer)
        if any(bound.term.loss.match is Match.CLASSES for bound in self.terms.values()):
            heads.gives_logits(self.student, last_layer, "student")
            for model in self.teacher.models:
                _, last_layer = taps.outline(model, teacher_x)
                heads.gives_logits(model, last_layer, "teacher")
        for term in (bound.term for bound in self.terms.values()):
            if "teacher_norm" in term.loss.needs:
                self.teacher.find_norm(teacher_x, term.teacher[0])
            if "student_head" in term.loss.needs:
                checks.same_vocabulary(
                    heads.classes_of(self.student, student_x, term.student[0]),
                    self.teacher.head_classes(teacher_x, term.teacher[0]),
                )
        self._bind_shapes(
            {
                "student": shapes.of_student(
                    self.student, student_x, self.student_taps
                ),
                "teacher": shapes.of_teacher(
                    self.teacher, teacher_x, self.teacher_taps
                ),
            }
        )

    def _bind_shapes(self, found: dict) -> None:
        """Build the terms' adapters; once built, another teacher must fit them."""
        if self.shapes is not None:
            checks.same_shapes(self.shapes["teacher"], found["teacher"])
            return
        for bound in self.terms.values():
            bound.bind(
                [found["student"][str(tap)] for tap in bound.term.student],
                [found["teacher"][str(tap)] for tap in bound.term.teacher],
            )
        self.shapes = found
        self.built = True
