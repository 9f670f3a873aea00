"""The step: batch, teacher, taps, losses, total, gradient; a thin one per backend."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_distill import strategies, taps
from keras_distill._backend.keras_trainer import compiled_loss
from keras_distill.data.selection import select
from keras_distill.distillers.context import LOGITS, Context
from keras_distill.distillers.gradient_scores import gradient_scores
from keras_distill.distillers.parts import replica_parts
from keras_distill.losses.schedules import advance
from keras_distill.strategies.replicas import require_samples


class StepLoss(NamedTuple):
    """The loss of a step in named parts.

    Args:
        total: that is minimized.
        parts: by name, before their weights; parts of the means over all replicas.
        y_pred: the student's prediction.
        mean_count: samples of a replica in the mean.
    """

    total: Any
    parts: dict
    y_pred: Any
    mean_count: Any


class TrainStep:
    """A training step: a thin one per backend around what is the same on all.

    A distiller has `run_teacher`, from the batch to the knowledge of it; `run_student`,
    from that to a loss with a `total`; and `update_logs`, from all of it to the logs.
    """

    # The layer of copies that follow the student as `run_teacher` begins.
    copies = None

    def train_step(self, *arguments):
        """Take one step; return the logs, on JAX beside the state."""
        steps = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}
        return steps[keras.backend.backend()](self, *arguments)


class DistillationStep(TrainStep):
    """What a distiller does with a batch.

    Everything but the gradient itself is the same on every backend. `train_step` takes
    what the backend's trainer passes: the batch, on JAX the state before it.
    """

    def run_teacher(self, x, y) -> dict:
        """Advance the schedules and run the teacher once; return its knowledge."""
        self.advance_schedules()
        self.teacher.follow(self.optimizer.iterations)
        inputs = select(x, self.teacher_inputs)
        return self.teacher(inputs, self.teacher_taps, gradient_scores(y))

    def advance_schedules(self) -> None:
        """Set weights and temperatures to the values of their schedules at this step."""
        step = self.optimizer.iterations
        advance(self.label_weight, self.label_source, step)
        for bound in self.terms.values():
            bound.advance(step)

    def run_student(self, x, y, sample_weight, knowledge: dict) -> StepLoss:
        """Run the student once, once more for mirrored taps; return the loss."""
        inputs = select(x, self.student_inputs)
        scores = gradient_scores(y, knowledge.get(LOGITS))
        if self.predicts_in_step():
            y_pred, features = taps.forward(
                self.student, inputs, self.student_taps, training=True, scores=scores
            )
        else:
            features = taps.up_to(
                self.student, inputs, self.student_taps, training=True, scores=scores
            )
            y_pred = features.get(LOGITS)
        return self.compare(x, y, sample_weight, y_pred, features, knowledge)

    def compare(self, x, y, sample_weight, y_pred, features, knowledge) -> StepLoss:
        """Compare the student's tensors with the teacher's knowledge and the labels."""
        context = Context(
            step=self.optimizer.iterations,
            labels=y,
            sample_ids=None if self.sample_ids is None else select(x, self.sample_ids),
            features=features,
            knowledge=knowledge,
            student=self.student,
            teacher=self.teacher,
        )
        means = {
            name: bound.compare(context, sample_weight)
            for name, bound in self.terms.items()
        }
        losses = {name: bound.term.loss for name, bound in self.terms.items()}
        if getattr(self, "loss", None) is not None:
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            means["label_loss"] = ops.cast(loss, "float32")
            losses["label_loss"] = self.loss
        count = ops.shape(keras.tree.flatten(x)[0])[0]
        mean_count = strategies.mean_count(count)
        parts = replica_parts(means, losses, count, mean_count)
        return StepLoss(self.total(parts), parts, y_pred, mean_count)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Return the compiled loss; in an evaluation with the student's penalties.

        In training, `total` adds these.
        """
        if training:
            return compiled_loss(self, y, y_pred, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def total(self, parts: dict):
        """Weigh the labels and the terms, and add the penalties as they are."""
        total = _penalty(self.penalties())
        for name, bound in self.terms.items():
            total += bound.weight * ops.cast(parts[name], "float32")
        if "label_loss" in parts:
            total += self.label_weight * parts["label_loss"]
        return total

    def update_logs(self, x, y, sample_weight, loss: StepLoss) -> dict:
        """Update running means and metrics; return the logs."""
        self.part_means.update_state(
            {"loss": loss.total, **loss.parts}, loss.mean_count
        )
        logs = self.compute_metrics(x, y, loss.y_pred, sample_weight)
        means = self.part_means.by_name()
        return {**logs, **{name: means[name] for name in ("loss", *loss.parts)}}

    def test_step(self, *arguments):
        """Evaluate the student alone."""
        result = super().test_step(*arguments)
        logs, *state = result if isinstance(result, tuple) else (result,)
        logs = strategies.reducible(logs)
        return (logs, *state) if state else logs


def _tensorflow(distiller, data) -> dict:
    import tensorflow as tf

    data = require_samples(data)
    x, *labels = keras.utils.unpack_x_y_sample_weight(data)
    knowledge = distiller.run_teacher(x, labels[0])
    copied = _values_of(distiller.copies)
    inputs = _after(copied, x)
    with tf.GradientTape() as tape:
        loss = distiller.run_student(inputs, *labels, knowledge)
        scaled = distiller.optimizer.scale_loss(loss.total)
    variables = distiller.trainable_variables
    gradients = _after(copied, tape.gradient(scaled, variables))
    distiller.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return strategies.reducible(distiller.update_logs(x, *labels, loss))


def _values_of(copies) -> list:
    """Return the values of the copies, once they have read the student's weights."""
    import tensorflow as tf

    return [] if copies is None else [tf.identity(v.value) for v in copies.variables]


def _after(copied: list, values):
    """Make inputs, or gradients, wait until the copies have read the student's weights.

    A copy's read and the update of what it read are ordered by a control edge alone,
    which TensorFlow drops where a path of tensors leads there too, even through a shape
    that it then folds into a constant. A path through all inputs stays: statistics that
    the student's run updates depend on its inputs, updates on the gradients.
    """
    if not copied:
        return values
    import tensorflow as tf

    def passed(value):
        return None if value is None else tf.identity(value)

    with tf.control_dependencies(copied):
        return keras.tree.map_structure(passed, values)


def _torch(distiller, data) -> dict:
    import torch

    batch = keras.utils.unpack_x_y_sample_weight(data)
    with torch.no_grad():
        knowledge = distiller.run_teacher(*batch[:2])
    variables = distiller.trainable_variables
    for variable in variables:
        # The module's own `zero_grad` does not reach models inside of models.
        variable.value.grad = None
    loss = distiller.run_student(*batch, knowledge)
    distiller.optimizer.scale_loss(loss.total).backward()
    with torch.no_grad():
        gradients = [variable.value.grad for variable in variables]
        distiller.optimizer.apply(gradients, variables)
        return distiller.update_logs(*batch, loss)


def _jax(distiller, state, data) -> tuple:
    import jax

    trainable, non_trainable, of_optimizer, of_metrics = state
    batch = keras.utils.unpack_x_y_sample_weight(data)
    updated = distiller.non_trainable_variables, distiller.metrics_variables
    variables = [*updated[0], *distiller.optimizer.variables, *updated[1]]
    values = [*non_trainable, *of_optimizer, *of_metrics]

    def run(trainable):
        mapping = [
            *zip(distiller.trainable_variables, trainable, strict=True),
            *zip(variables, values, strict=True),
        ]
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            knowledge = distiller.run_teacher(*batch[:2])
            loss = distiller.run_student(*batch, knowledge)
            scaled = distiller.optimizer.scale_loss(loss.total)
            logs = distiller.update_logs(*batch, loss)
        after = [[scope.get_current_value(v) for v in part] for part in updated]
        return scaled, (logs, *after)

    (_, (logs, non_trainable, of_metrics)), gradients = jax.value_and_grad(
        run, has_aux=True
    )(trainable)
    trainable, of_optimizer = distiller.optimizer.stateless_apply(
        of_optimizer, gradients, trainable
    )
    return logs, (trainable, non_trainable, of_optimizer, of_metrics)


def _penalty(penalties: Sequence):
    """Return this replica's part of the sum of the penalties."""
    replicas = strategies.replica_count()
    return sum(ops.cast(ops.sum(p), "float32") / replicas for p in penalties)
