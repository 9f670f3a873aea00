"""The distiller: a student that `fit` trains on labels and on a teacher's knowledge."""

import operator
from collections.abc import Sequence
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill._backend import keras_functions
from keras_distill._backend.jax_state import held_values, losses_of_run
from keras_distill._backend.keras_layers import Untracked
from keras_distill._backend.keras_trainer import forget_compiled
from keras_distill.data.entry import Entry
from keras_distill.data.selection import Selection, for_model
from keras_distill.distillers import binding, context, term_checks
from keras_distill.distillers.bound_term import BoundTerm
from keras_distill.distillers.checking import Checking
from keras_distill.distillers.entering import Entering
from keras_distill.distillers.evaluation import check_validates
from keras_distill.distillers.kept_compile import KeptCompile, default_metrics
from keras_distill.distillers.own_methods import (
    OwnMethods,
    judges_itself,
    warn_of_steps,
)
from keras_distill.distillers.replica_parts import PartMeans
from keras_distill.distillers.step import DistillationStep
from keras_distill.distillers.task_term import TaskTerm
from keras_distill.distillers.term import Term
from keras_distill.distillers.tracking import Tracking
from keras_distill.losses.schedules import current, scheduled_variable
from keras_distill.teachers.base_teacher import BaseTeacher
from keras_distill.teachers.ensemble import as_teacher
from keras_distill.training.fit import Fitting


@keras.saving.register_keras_serializable(package="keras_distill")
class Distiller(
    OwnMethods,
    Checking,
    DistillationStep,
    Entering,
    Fitting,
    KeptCompile,
    Tracking,
    keras.Model,
):
    r"""Train a student on labels and on the knowledge of a teacher.

    One step runs the teacher once, in inference form and outside the gradient, and the
    student once (once more for mirrored gradients); each term compares tensors of the
    two:

    .. math::

        \mathrm{total} = \lambda \, \ell_{\mathrm{label}}
            + \sum_i w_i \, \mathrm{term}_i + \mathrm{regularization}

    The label loss is the one passed to `compile`, lambda its `label_weight`, w_i the
    weight of a term; regularization is the student's L2 and `add_loss`, once and at
    full strength. The logs show the total as `loss` and every part by its name, before
    its weight. `evaluate` and `predict` use the student alone. The teacher is left
    unchanged, except for a mean of the student, and no file of the distiller contains
    it.

    Args:
        student: the `keras.Model` to train. It remains a plain Keras model,
            `distiller.student`.
        teacher: a built `keras.Model`, or a `kd.BaseTeacher` such as
            `kd.EnsembleTeacher`.
        terms: what to learn from the teacher. Default: predictions, by the loss that fits
            the one passed to `compile`: soft targets at temperature 4 of classes
            (`SoftTarget`) or of independent labels (`BinarySoftTarget`), or regression
            on the outputs (`OutputRegression`). With a loss that is not Keras's own the
            labels of the data show which. Without a loss, the one that the teacher was
            compiled with counts; else `BinarySoftTarget` for one output, `SoftTarget`
            for more.
        label_weight: weight of the compiled loss, a number >= 0 or a schedule of steps.
            Default 1. It is a variable, to which a callback may `assign`.
        student_inputs: the student's part of the batch's inputs: a key, an index, a
            list or dict of these, a function, or a layer such as
            `keras.layers.Resizing`, which runs in training form in `fit`. Default: all.
        teacher_inputs: the teacher's part, likewise; layers run in inference form.
        inputs: what both select from, likewise: a random layer or function here, or on
            both sides, runs once, so that both models see the same. Default: the
            batch's inputs.
        sample_ids: key or index of the sample ids in the inputs, for losses that need
            them. Default: none.
        name: model name.

    Raises:
        TypeError: student, teacher or a term is of another kind.
        ValueError: a tap that does not exist or is ambiguous, shapes that no adapter
            joins, different class counts, probabilities in place of logits, a teacher
            that is not built or is the student, negative weights, two terms of one name.

    Example:
        >>> distiller = kd.Distiller(student, teacher, terms=[
        ...     kd.Term(kd.losses.SoftTarget(temperature=4.0), weight=0.9),
        ...     kd.Term(kd.losses.Hint(), student="stack2", teacher="stack3"),
        ... ], label_weight=0.1)
        >>> distiller.compile(
        ...     "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> distiller.fit(train, epochs=2)
        >>> distiller.student.save("student.keras")

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | BaseTeacher | None,
        *,
        terms: Sequence[Term] | None = None,
        label_weight: float | LearningRateSchedule = 1.0,
        student_inputs: Selection = None,
        teacher_inputs: Selection = None,
        inputs: Selection = None,
        sample_ids: str | int | None = None,
        name: str | None = None,
    ):
        term_checks.check_student(student)
        super().__init__(name=name, dtype=student.dtype_policy, autocast=False)
        terms = [TaskTerm()] if terms is None else term_checks.listed(terms)
        term_checks.check_terms(terms)
        term_checks.check_not_negative(label_weight, "label_weight")
        self.student = student
        self.judged_by_student = judges_itself(student)
        self.student_inputs = student_inputs
        self.teacher_inputs = teacher_inputs
        self.shared_inputs = inputs
        self.sample_ids = sample_ids
        self.terms = {term.name: BoundTerm(term) for term in terms}
        # The loss of the labels, where the distiller is compiled without one.
        self.label_tasks = None
        self.student_taps = context.student_taps(terms)
        self.requests = context.requests_of(terms)
        self.teacher_taps = tuple(
            dict.fromkeys(tap for request in self.requests for tap in request.taps)
        )
        self.label_source = label_weight
        self.label_weight = scheduled_variable(self, "label_weight", label_weight)
        self.held, self.held_in_test = Untracked([]), Untracked([])
        self.part_means = PartMeans(["loss", *self.part_names()])
        self.shapes = self.classes = self.teacher = self.copies = None
        self.lengths = binding.BoundLengths()
        self.is_bound = False
        self.ends_in_logits = False
        # The keys of outputs of a student of its own class, which has no names for them.
        self.unnamed_outputs = []
        if teacher is not None:
            self.set_teacher(teacher)

    def set_teacher(self, teacher: keras.Model | BaseTeacher) -> None:
        """Set the teacher, which a distiller that was loaded from a file needs again.

        Args:
            teacher: a built `keras.Model`, or a `kd.BaseTeacher`.

        Raises:
            TypeError, ValueError: as in the constructor.

        Example:
            >>> distiller.save("distiller.keras")
            >>> distiller = keras.saving.load_model("distiller.keras")
            >>> distiller.set_teacher(teacher)
            >>> distiller.fit(train, initial_epoch=2, epochs=4)
        """
        teacher = as_teacher(teacher)
        term_checks.check_different_models(self.student, teacher)
        teacher.check(self.requests)
        self.teacher, self.copies = teacher, teacher.copies
        self.supports_jit = self.supports_jit and teacher.supports_jit
        # A compiled step still holds the previous teacher.
        self.train_function = self.test_function = None
        self.is_bound = False
        self.first_batch_checked = False
        binding.bind_if_declared(self)

    def compile(
        self,
        optimizer: str | keras.Optimizer = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = "auto",
        weighted_metrics: Any = "auto",
        *,
        validate_terms: bool = False,
        log_weights: bool = False,
        **arguments: Any,
    ) -> None:
        """Configure the training, as `keras.Model.compile` does.

        With `validate_terms`, `evaluate` and the validation in `fit` run the teacher too:
        each term's mean over the data is logged by its name (`val_soft_target`), and
        `loss` is the total as in training. Nothing is changed by it: adapters run in
        inference form, copies of the student stay. Without it, they evaluate the student
        alone, and there is no `val_loss` without a loss of the labels.

        With `log_weights`, the logs of a training show the weights and temperatures of its
        last step, which schedules and callbacks change, as `label_weight`,
        `soft_target_weight` and `soft_target_temperature`.

        A student with its own `compute_loss` or `compute_metrics` is compiled too, with
        the loss, the metrics and whatever else its own `compile` takes, such as a
        detector's `box_loss`; its optimizer stays. If none are passed, those that it was
        compiled with before count. Metrics that are `"auto"`, the default, are those with
        which a task of keras_hub compiles itself, if there is a loss; other students have
        none.
        """
        given = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        arguments |= default_metrics(self.student, loss, given)
        arguments |= {"loss": loss, "loss_weights": loss_weights}
        warn_of_steps(self.student)
        if validate_terms:
            check_validates(bound.term for bound in self.terms.values())
        self.validates_terms, self.log_weights = validate_terms, log_weights
        forget_compiled(self)
        super().compile(optimizer, **self.compile_student(arguments))
        self.take_students_loss(loss)
        own = {"validate_terms": validate_terms, "log_weights": log_weights}
        self.keep_compile(**own, **arguments)
        binding.settle(self, binding.known_lengths(self))
        self.first_batch_checked = False

    def loss_of_task(self):
        """Return the loss that shows what the student predicts, None if there is none."""
        loss = getattr(self, "loss", None)
        return self.label_tasks if loss is None else loss

    def replace_terms(self, bounds: Sequence[BoundTerm]) -> None:
        """Replace the terms by others of the same taps."""
        # Popped, so that Keras no longer tracks them.
        for name in list(self.terms):
            self.terms.pop(name)
        for bound in bounds:
            self.terms[bound.name] = bound
        self.part_means.names = ["loss", *self.part_names()]
        self.requests = context.requests_of(bound.term for bound in bounds)
        if self.teacher is not None:
            self.teacher.check(self.requests)

    @property
    def output_names(self) -> list[str]:
        """The student's output names, by which losses and metrics are keyed."""
        return self.student.output_names

    @property
    def losses(self) -> list:
        """The student's penalties, which an evaluation counts."""
        return losses_of_run(self) or self.student.losses

    def penalties(self) -> list:
        """Return the penalties of the student and the adapters, which training counts."""
        adapters = (p for bound in self.terms.values() for p in bound.losses)
        return [*self.student.losses, *adapters]

    def get_metrics_result(self) -> dict:
        """Return the logs of an evaluation; the parts of the loss are those of training."""
        return self.results(without=[self.part_means.name])

    def results(self, without: Sequence[str]) -> dict:
        """Return the running means by name, without some metrics and those not built."""
        logs = {}
        for metric in self.metrics:
            if metric.name not in without and getattr(metric, "built", True):
                result = metric.result()
                logs |= result if isinstance(result, dict) else {metric.name: result}
        return logs

    def means(self, training: bool) -> dict:
        """Return the running means of the logs, in training with the parts of the loss."""
        means = self.get_metrics_result()
        if training:
            means |= self.part_means.by_name()
            if not self.has_label_loss():
                del means["label_loss"]
            means |= current(self.logged_weights())
        return means

    def call(self, inputs, training=None):
        """Return the student's prediction."""
        teacher = self.teacher
        binds = not self.built and teacher is not None and not teacher.adapts_to_data
        if binds and self.entry.reaches_teacher(inputs):
            self.bind_to(inputs)
        inputs = self.entry.student_alone(inputs, bool(training))
        return self.student(inputs, training=training)

    @property
    def entry(self) -> Entry:
        """What student and teacher take of a batch."""
        own, teachers = for_model(self.student_inputs, self.student), ()
        if self.teacher is not None:
            teachers = self.teacher.models
            own = self.teacher.student_selection(own, self.sample_ids)
        selections = self.shared_inputs, own, self.teacher_inputs, self.sample_ids
        return Entry(*selections, [self.student], teachers)

    def predicts_in_step(self) -> bool:
        """Whether a step needs the student's prediction, and not only its taps."""
        kinds = "metrics", "weighted_metrics"
        metrics = any(self.compile_arguments().get(kind) for kind in kinds)
        judged = self.has_label_loss() or self.judged_by_student
        return bool(judged or metrics or not self.student_taps)

    def make_train_function(self, force=False):
        """Compile the step, anew if it holds weights of a teacher that have changed."""
        models = self.teacher.models if self.teacher is not None else ()
        held = held_values(models, self.variables)
        before, self.held = self.held.value, Untracked(held)
        super().make_train_function(force or not _are_same(held, before))

    def make_test_function(self, force=False):
        """Compile the evaluation, anew if it holds weights of a teacher that changed."""
        runs_teacher = self.teacher is not None and self.validates_terms
        held = held_values(self.teacher.models if runs_teacher else (), self.variables)
        before, self.held_in_test = self.held_in_test.value, Untracked(held)
        super().make_test_function(force or not _are_same(held, before))

    def export(
        self, filepath: Any, format: str = "tf_saved_model", **arguments: Any
    ) -> None:
        """Export the student, for inference, as `keras.Model.export` does.

        What is exported takes what the student takes: its part of the inputs, after
        `student_inputs`, which is not in the file.

        Args:
            filepath: where to.
            format: `"tf_saved_model"` (default), `"onnx"`, `"litert"` or another that
                Keras exports.
            **arguments: as in `keras.Model.export`.
        """
        self.student.export(filepath, format=format, **arguments)

    def own_callbacks(self) -> list:
        """Return the callbacks in front of the user's, the teacher's among them."""
        return [*super().own_callbacks(), *self.teacher.callbacks()]

    def part_names(self) -> list[str]:
        """Return the names of the parts of the loss in the logs."""
        return ["label_loss", *self.terms]

    def replicated_layers(self) -> list[keras.Layer]:
        """Return the layers whose moving statistics all replicas share."""
        adapters = [
            (bound.student_adapters, bound.teacher_adapters)
            for bound in self.terms.values()
        ]
        of_teacher = self.teacher and self.teacher.replicated
        layers = [self.student, of_teacher, *keras.tree.flatten(adapters)]
        return [layer for layer in layers if layer is not None]

    def get_config(self) -> dict:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "student": serialize(self.student),
            "terms": [serialize(bound.term) for bound in self.terms.values()],
            "label_weight": serialize(self.label_source),
            "student_inputs": keras_functions.serialize(self.student_inputs),
            "teacher_inputs": keras_functions.serialize(self.teacher_inputs),
            "inputs": keras_functions.serialize(self.shared_inputs),
            "sample_ids": self.sample_ids,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "Distiller":
        config = keras.saving.deserialize_keras_object(config, custom_objects)
        return cls(config.pop("student"), None, **config)

    def get_build_config(self) -> dict | None:
        return self.shapes and {"shapes": self.shapes}

    def build_from_config(self, config: dict) -> None:
        binding.bind_shapes(self, config["shapes"])

    def with_terms(
        self, terms: Sequence[Term], label_weight: float | LearningRateSchedule = 1.0
    ) -> "Distiller":
        """Return another distiller of the same student, teacher and inputs.

        Args:
            terms: what it learns from the teacher.
            label_weight: weight of the loss that it is compiled with.

        Example:
            >>> hint = kd.Term(kd.losses.Hint(), student="stack2", teacher="stack3")
            >>> first = distiller.with_terms([hint], label_weight=0.0)
        """
        other = Distiller(
            self.student,
            self.teacher,
            terms=terms,
            label_weight=label_weight,
            student_inputs=self.student_inputs,
            teacher_inputs=self.teacher_inputs,
            inputs=self.shared_inputs,
            sample_ids=self.sample_ids,
        )
        other.label_tasks = self.loss_of_task()
        return other

    def bind_to(self, x) -> None:
        """Create the adapters from a batch, for a student that declares no inputs.

        Args:
            x: the inputs of a batch.

        Raises:
            ValueError: as in the constructor.
        """
        binding.bind_to_batch(self, x)


def _are_same(values: Sequence, others: Sequence) -> bool:
    return len(values) == len(others) and all(map(operator.is_, values, others))
