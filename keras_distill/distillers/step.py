"""The training step: batch, teacher, taps, losses, total; each backend takes the gradient."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_distill import strategies, taps
from keras_distill._backend import jax_step, tensorflow_step, torch_step
from keras_distill._backend.keras_trainer import compiled_loss
from keras_distill.data.preparation import of_member
from keras_distill.distillers.context import LOGITS, Context
from keras_distill.distillers.evaluation import Evaluation, reducible, where_samples
from keras_distill.distillers.gradient_scores import gradient_scores
from keras_distill.distillers.log_names import check_names
from keras_distill.distillers.replica_parts import label_weights, replica_parts
from keras_distill.losses.schedules import advance, current
from keras_distill.strategies.replicas import require_samples
from keras_distill.taps.masks import masks_of, with_masks
from keras_distill.teachers.base_teacher import check_knowledge


class StepLoss(NamedTuple):
    """The loss of a step in named parts.

    Args:
        total: the loss that is minimized.
        parts: this replica's part of each mean loss, by name, before its weight.
        inputs: of the student.
        y_pred: the student's prediction.
        mean_count: mean number of samples per replica.
        weights: what the logs show of weights and temperatures, by name.
    """

    total: Any
    parts: dict
    inputs: Any
    y_pred: Any
    mean_count: Any
    weights: dict


class TrainStep:
    """A training step, of which only the gradient differs between backends.

    A distiller implements `enter`, from data to a batch that its models select from;
    `run_teacher`, from the batch to the teacher's knowledge; `run_student`, from that to
    a loss with a `total`; and `update_logs`, to the logs. Its `copies` is the layer of
    copies that follow the student as `run_teacher` begins, or None. (On torch a default
    in the class would hide a layer that is set later.)
    """

    def takes_parts(self) -> bool:
        """Whether the optimizer takes the gradients of labels and of terms apart."""
        return hasattr(_inner(self.optimizer), "join_parts")

    def objectives(self, loss) -> list:
        """Return what is differentiated: the total, or labels and terms apart."""
        totals = self.totals(loss) if self.takes_parts() else [loss.total]
        return [self.optimizer.scale_loss(total) for total in totals]

    def joined(self, gradients: Sequence[Sequence]) -> Sequence:
        """Return one gradient per variable from those of each objective."""
        if len(gradients) == 1:
            return gradients[0]
        return _inner(self.optimizer).join_parts(*gradients)

    def train_step(self, *arguments):
        """Take one step; return the logs, on JAX with the state after it."""
        *state, data = arguments
        steps = {"tensorflow": tensorflow_step, "torch": torch_step, "jax": jax_step}
        step = steps[keras.backend.backend()].train_step
        return reducible(step(self, *state, require_samples(data)))


class DistillationStep(Evaluation, TrainStep):
    """What a distiller does with a batch.

    `train_step` takes what the backend's trainer passes: the batch, on JAX the state too.
    """

    def run_teacher(self, x, y) -> dict:
        """Advance the schedules and run the teacher once; return its knowledge."""
        self.advance_schedules()
        self.teacher.follow(self.optimizer.iterations)
        return self.knowledge_of(x, y)

    def knowledge_of(self, x, y) -> dict:
        """Run the teacher once; return its knowledge."""
        inputs = self.entry.teacher_part(x)
        knowledge = self.teacher(inputs, self.teacher_taps, gradient_scores(y))
        check_knowledge(self.teacher, knowledge, self.teacher_taps)
        return with_masks(knowledge, self.lengths.teacher, of_member(inputs, 0))

    def judge(self, x, y, sample_weight) -> StepLoss:
        """Run teacher and student in inference form; return the loss of an evaluation."""
        self.check_has_labels(y)
        knowledge = self.knowledge_of(x, y)
        return self.run_student(x, y, sample_weight, knowledge, training=False)

    def advance_schedules(self) -> None:
        """Set weights and temperatures to the values of their schedules at this step."""
        step = self.optimizer.iterations
        advance(self.label_weight, self.label_source, step)
        for bound in self.terms.values():
            bound.advance(step)

    def run_student(
        self, x, y, sample_weight, knowledge: dict, training: bool = True
    ) -> StepLoss:
        """Run the student once, once more for mirrored taps; return the loss."""
        inputs = self.entry.student_part(x, training)
        scores = gradient_scores(y, knowledge.get(LOGITS))
        run = self.student, inputs, self.student_taps
        if self.predicts_in_step():
            tensors = taps.forward(*run, training=training, scores=scores)
        else:
            features = taps.up_to(*run, training=training, scores=scores)
            tensors = features.get(LOGITS), features
        return self.compare(x, y, sample_weight, *tensors, knowledge, inputs, training)

    def compare(
        self,
        x,
        y,
        sample_weight,
        y_pred,
        features,
        knowledge,
        inputs,
        training: bool = True,
    ) -> StepLoss:
        """Compare the student's tensors with the teacher's knowledge and the labels.

        Args:
            x, y, sample_weight: the batch.
            y_pred: the student's prediction, None if nothing needs it.
            features: the student's tensors, by tap.
            knowledge: the teacher's.
            inputs: what the student took.
            training: whether adapters run in training form.
        """
        count = ops.shape(keras.tree.flatten(x)[0])[0]
        mean_count = strategies.mean_count(count)
        context = Context(
            step=self.optimizer.iterations,
            labels=y,
            loss=getattr(self, "loss", None),
            sample_ids=self.entry.ids(x),
            features=features,
            masks=masks_of(features, self.lengths.student, inputs),
            lengths=self.lengths.student,
            knowledge=knowledge,
            inputs={
                "student": lambda: inputs,
                "teacher": lambda: self.entry.teacher_part(x),
                "batch": lambda: self.entry.whole(x),
            },
            student=self.student,
            teacher=self.teacher,
            training=training,
        )
        means = {
            name: bound.compare(context, sample_weight)
            for name, bound in self.terms.items()
        }
        losses = {name: bound.term.loss for name, bound in self.terms.items()}
        if self.has_label_loss():
            weights = sample_weight
            if not self.has_own_loss():
                weights = label_weights(
                    y, y_pred, sample_weight, self.loss, count, mean_count
                )
            loss = self.label_loss(inputs, y, y_pred, weights, training)
            means["label_loss"] = ops.cast(loss, "float32")
            losses["label_loss"] = self.loss
        if not training and count is not mean_count:
            means = where_samples(means, count)
        parts = replica_parts(means, losses, count, mean_count)
        weights = current(self.logged_weights()) if training else {}
        return StepLoss(self.total(parts), parts, inputs, y_pred, mean_count, weights)

    def label_loss(self, inputs, y, y_pred, sample_weight, training: bool):
        """Return the compiled loss of the labels, without penalties."""
        del inputs, training
        return compiled_loss(self, y, y_pred, sample_weight)

    def total(self, parts: dict):
        """Weigh the labels and the terms, and add the penalties as they are."""
        total, parts = _penalty(self.penalties()), self.averaged(parts)
        for name, bound in self.terms.items():
            total += bound.weight * ops.cast(parts[name], "float32")
        if "label_loss" in parts:
            total += self.label_weight * parts["label_loss"]
        return total

    def averaged(self, parts: dict) -> dict:
        """Return the parts as they are weighed, means over several teachers."""
        return parts

    def totals(self, loss: StepLoss) -> tuple:
        """Return what the labels and the terms add to the total, with their penalties."""
        parts = self.averaged(loss.parts)
        labels, terms = ops.zeros(()), ops.zeros(())
        labels += _penalty(self.student.losses)
        if "label_loss" in parts:
            labels += self.label_weight * parts["label_loss"]
        for name, bound in self.terms.items():
            terms += bound.weight * ops.cast(parts[name], "float32")
            terms += _penalty(bound.losses)
        return labels, terms

    def update_logs(self, x, y, sample_weight, loss: StepLoss) -> dict:
        """Update running means and metrics; return the logs."""
        self.part_means.update_state(
            {"loss": loss.total, **loss.parts}, loss.mean_count
        )
        logs = self.update_metrics(loss.inputs, y, loss.y_pred, sample_weight)
        check_names([*loss.parts, *loss.weights], logs)
        means = self.part_means.by_name()
        parts = {name: means[name] for name in ("loss", *loss.parts)}
        return {**logs, **parts, **loss.weights}


def _inner(optimizer):
    """Return an optimizer, without what scales the loss around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _penalty(penalties: Sequence):
    """Return this replica's part of the sum of the penalties."""
    replicas = strategies.replica_count()
    return sum(ops.cast(ops.sum(p), "float32") / replicas for p in penalties)
