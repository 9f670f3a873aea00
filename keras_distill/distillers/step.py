"""The step: batch, teacher, taps, losses, total, gradient; a thin one a backend."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill import strategies, taps
from keras_distill.data.selection import select
from keras_distill.distillers.gradient_scores import scores
from keras_distill.distillers.shares import shared
from keras_distill.losses.schedules import advance
from keras_distill.strategies.replicas import require_samples

LOGITS = taps.Tap(taps.LOGITS)


class TrainStep:
    """A step of training: thin ones a backend around what is the same on all.

    A distiller has `_know`, what teachers know of the batch; `_learn`, from that to the
    total and whatever else; and `_note`, from all of it to the logs.
    """

    # The layer of copies that move as `_know` begins.
    followers = None

    def train_step(self, *arguments):
        """Take one step; give the logs, on JAX beside the state."""
        steps = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}
        return steps[keras.backend.backend()](self, *arguments)

    def _get_metrics_result_or_logs(self, logs):
        """Give the means over all replicas, also where some metrics are not shown."""
        found = self.means(training=not set(self.part_names()).isdisjoint(logs))
        return {name: found[name] for name in logs} if set(logs) <= set(found) else logs


class DistillationStep(TrainStep):
    """What a distiller does with a batch.

    Everything but the gradient itself is the same on every backend. `train_step` takes
    what the backend's trainer gives: the batch, on JAX the state before it.
    """

    def test_step(self, *arguments):
        """Evaluate the student alone."""
        found = super().test_step(*arguments)
        logs, *state = found if isinstance(found, tuple) else (found,)
        logs = strategies.reducible(logs)
        return (logs, *state) if state else logs

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Give the compiled loss and the student's penalties, not the adapters'."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        adapters = [p for bound in self.terms.values() for p in bound.losses]
        return loss - _sum(adapters)

    def _know(self, x, y) -> dict:
        """Move what moves, run the teacher once, give what it knows."""
        self.move()
        self.teacher.follow(self.optimizer.iterations)
        inputs = select(x, self.teacher_inputs)
        return self.teacher(inputs, self.teacher_taps, scores(y))

    def move(self) -> None:
        """Set weights and temperatures to what their schedules say of this step."""
        step = self.optimizer.iterations
        advance(self.label_weight, self.label_source, step)
        for bound in self.terms.values():
            bound.advance(step)

    def _learn(self, x, y, sample_weight, knowledge: dict) -> tuple:
        """Run the student once, once more for mirrored taps.

        Returns:
            The total, the parts by name, before their weights, the prediction, and the
            mean number of samples of a replica.
        """
        y_pred, features = self._look(
            select(x, self.student_inputs), scores(y, knowledge.get(LOGITS))
        )
        return self._judge(x, y, sample_weight, y_pred, features, knowledge)

    def _judge(self, x, y, sample_weight, y_pred, features, knowledge: dict) -> tuple:
        """Compare what the student's run gave with what the teacher knows."""
        parts = self._term_losses(x, y, sample_weight, features, knowledge)
        losses = {name: bound.term.loss for name, bound in self.terms.items()}
        if getattr(self, "loss", None) is not None:
            parts["label_loss"] = self._label_loss(x, y, y_pred, sample_weight)
            losses["label_loss"] = self.loss
        count = ops.shape(keras.tree.flatten(x)[0])[0]
        mean_count = strategies.mean_count(count)
        parts = shared(parts, losses, count, mean_count)
        return self._total(parts), parts, y_pred, mean_count

    def _look(self, inputs, scores) -> tuple:
        """Run the student; where nothing asks for its output, up to the deepest tap."""
        judged = getattr(self, "loss", None) or self._compile_metrics
        if judged or not self.student_taps:
            return taps.forward(
                self.student, inputs, self.student_taps, training=True, scores=scores
            )
        features = taps.up_to(
            self.student, inputs, self.student_taps, training=True, scores=scores
        )
        return features.get(LOGITS), features

    def _note(
        self, x, y, sample_weight, total, parts: dict, y_pred, mean_count
    ) -> dict:
        """Add the step's values to the running means and metrics; give the logs."""
        replicas = strategies.replica_count()
        values = {name: value * replicas for name, value in parts.items()}
        self.part_means.update_state({"loss": total * replicas, **values}, mean_count)
        logs = self.compute_metrics(x, y, y_pred, sample_weight)
        means = self.part_means.by_name()
        return {**logs, **{name: means[name] for name in ("loss", *parts)}}

    def _term_losses(self, x, y, sample_weight, features, knowledge) -> dict:
        """Give each term's loss, before its weight."""
        context = {"step": self.optimizer.iterations}
        if y is not None:
            context["labels"] = y
        if self.sample_ids is not None:
            context["sample_ids"] = select(x, self.sample_ids)
        if LOGITS in features:
            context["student_logits"] = features[LOGITS]
        if LOGITS in knowledge:
            context["teacher_logits"] = self.teacher.logits(knowledge[LOGITS])
        return {
            name: bound.compare(
                features,
                knowledge,
                student=self.student,
                teacher=self.teacher,
                sample_weight=sample_weight,
                context=context,
            )
            for name, bound in self.terms.items()
        }

    def _label_loss(self, x, y, y_pred, sample_weight):
        """Give the compiled loss alone: Keras adds the penalties to it."""
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
        return ops.cast(loss, "float32") - _sum(self.student.losses)

    def _total(self, parts: dict):
        """Weigh labels and terms, add regularisation as it is."""
        total = _sum(self.losses)
        for name, bound in self.terms.items():
            total += bound.weight * ops.cast(parts[name], "float32")
        if "label_loss" in parts:
            total += self.label_weight * parts["label_loss"]
        return total


def _tensorflow(distiller, data) -> dict:
    import tensorflow as tf

    data = require_samples(data)
    batch = keras.utils.unpack_x_y_sample_weight(data)
    knowledge = distiller._know(*batch[:2])
    copied = _copied(distiller.followers)
    x = _after(copied, batch[0])
    with tf.GradientTape() as tape:
        found = distiller._learn(x, *batch[1:], knowledge)
        scaled = distiller.optimizer.scale_loss(found[0])
    variables = distiller.trainable_variables
    gradients = _after(copied, tape.gradient(scaled, variables))
    distiller.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return strategies.reducible(distiller._note(*batch, *found))


def _copied(followers) -> list:
    """Give what stands in the copies, once they have read the student's weights."""
    import tensorflow as tf

    return (
        [] if followers is None else [tf.identity(v.value) for v in followers.variables]
    )


def _after(copied: list, values):
    """Let inputs, or gradients, wait until copies have read the student's weights.

    A copy's read and the update of what it read are ordered by a control edge alone,
    which TensorFlow drops where a path by a tensor leads there too, even by a shape
    that it then folds into a constant. A path by all that comes in stays: statistics
    that the student's run moves come of its inputs, updates of the gradients.
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
        knowledge = distiller._know(*batch[:2])
    variables = distiller.trainable_variables
    for variable in variables:
        # The module's own `zero_grad` does not reach models inside of models.
        variable.value.grad = None
    found = distiller._learn(*batch, knowledge)
    distiller.optimizer.scale_loss(found[0]).backward()
    with torch.no_grad():
        gradients = [variable.value.grad for variable in variables]
        distiller.optimizer.apply(gradients, variables)
        return distiller._note(*batch, *found)


def _jax(distiller, state, data) -> tuple:
    import jax

    trainable, untrained, of_optimizer, of_metrics = state
    batch = keras.utils.unpack_x_y_sample_weight(data)
    kept = distiller.non_trainable_variables, distiller.metrics_variables
    variables = [*kept[0], *distiller.optimizer.variables, *kept[1]]
    values = [*untrained, *of_optimizer, *of_metrics]

    def run(trainable):
        mapping = [
            *zip(distiller.trainable_variables, trainable, strict=True),
            *zip(variables, values, strict=True),
        ]
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            knowledge = distiller._know(*batch[:2])
            found = distiller._learn(*batch, knowledge)
            scaled = distiller.optimizer.scale_loss(found[0])
            logs = distiller._note(*batch, *found)
        moved = [[scope.get_current_value(v) for v in part] for part in kept]
        return scaled, (logs, *moved)

    (_, (logs, untrained, of_metrics)), gradients = jax.value_and_grad(
        run, has_aux=True
    )(trainable)
    trainable, of_optimizer = distiller.optimizer.stateless_apply(
        of_optimizer, gradients, trainable
    )
    return logs, (trainable, untrained, of_optimizer, of_metrics)


def _sum(penalties: Sequence):
    """Add penalties up to this replica's share of them."""
    replicas = strategies.replica_count()
    return sum(ops.cast(ops.sum(p), "float32") / replicas for p in penalties)
