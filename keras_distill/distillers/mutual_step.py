"""The step of peers: each is run once, and its tensors are what the others learn from."""

from typing import Any, NamedTuple

import keras

from keras_distill import taps
from keras_distill._backend.jax_state import state_of, values_of
from keras_distill.data.preparation import of_member
from keras_distill.distillers.evaluation import reducible, terms_step
from keras_distill.distillers.gradient_scores import gradient_scores
from keras_distill.distillers.step import StepLoss, TrainStep
from keras_distill.taps.masks import with_masks
from keras_distill.taps.values import without_gradient


class MutualLoss(NamedTuple):
    """The loss of a step of all peers.

    Args:
        total: the loss that is minimized.
        members: the `StepLoss` of each peer.
    """

    total: Any
    members: list[StepLoss]


class MutualStep(TrainStep):
    """The parts of a training step of all peers, and their evaluation.

    A mixin in front of `keras.Model`, which has `members`, a distiller for each peer,
    `entry`, `copies` and `peer_taps`.
    """

    def run_teacher(self, x, y) -> dict:
        """Advance the schedules; with copies, renew and run these."""
        for member in self.members:
            member.advance_schedules()
        if self.copies is not None:
            self.copies.renew(self.optimizer.iterations % self.refresh == 0)
        return self.knowledge_of(x)

    def knowledge_of(self, x) -> dict:
        """Return what the copies know, by their index; without copies nothing."""
        if self.copies is None:
            return {}
        inputs = self.entry.student_part(x, training=True)
        return {
            index: taps.up_to(copy, of_member(inputs, index), wanted) if wanted else {}
            for index, (copy, wanted) in enumerate(
                zip(self.copies.models, self.peer_taps, strict=True)
            )
        }

    def judge(self, x, y, sample_weight) -> MutualLoss:
        """Run each peer in inference form; return the losses of an evaluation."""
        for member in self.members:
            member.check_has_labels(y)
        knowledge = self.knowledge_of(x)
        return self.run_student(x, y, sample_weight, knowledge, training=False)

    def run_student(
        self, x, y, sample_weight, knowledge: dict, training: bool = True
    ) -> MutualLoss:
        """Run each peer once; return the losses of all."""
        runs, inputs = [], self.entry.student_part(x, training)
        scores = gradient_scores(y)
        for index, (member, for_others) in enumerate(
            zip(self.members, self.peer_taps, strict=True)
        ):
            wanted = dict.fromkeys([*member.student_taps, *for_others])
            own, peer = of_member(inputs, index), member.student
            run = taps.forward(peer, own, wanted, training=training, scores=scores)
            runs.append(run)
        tensors = knowledge or {index: run[1] for index, run in enumerate(runs)}
        tensors = keras.tree.map_structure(without_gradient, tensors)
        losses = []
        for index, (member, run) in enumerate(zip(self.members, runs, strict=True)):
            known = member.teacher.knowledge(tensors, member.teacher_taps)
            taught = of_member(inputs, member.teacher.indices[0])
            known = with_masks(known, member.lengths.teacher, taught)
            own = of_member(inputs, index)
            loss = member.compare(x, y, sample_weight, *run, known, own, training)
            losses.append(loss)
        return MutualLoss(sum(loss.total for loss in losses), losses)

    def totals(self, loss: MutualLoss) -> tuple:
        """Return what the labels and the terms of all peers add to the total."""
        pairs = zip(self.members, loss.members, strict=True)
        found = [member.totals(own) for member, own in pairs]
        return tuple(sum(part) for part in zip(*found, strict=True))

    def update_logs(self, x, y, sample_weight, loss: MutualLoss) -> dict:
        """Update running means and metrics of all peers; return the logs."""
        logs = {}
        for member, own in zip(self.members, loss.members, strict=True):
            logs |= member.named(member.update_logs(x, y, sample_weight, own))
        return self.with_loss(logs)

    def test_step(self, *arguments):
        """Evaluate every peer; return the logs, on JAX with the state after it."""
        if any(member.validates_terms for member in self.members):
            return reducible(terms_step(self, *arguments))
        *state, data = arguments
        logs, values = {}, values_of(self, *state) if state else None
        for member in self.members:
            if state:
                own, after = member.test_step(state_of(member, values), data)
                values |= values_of(member, after)
            else:
                own = member.test_step(data)
            logs |= member.named(own)
        logs = self.with_loss(logs)
        return (logs, state_of(self, values)) if state else logs

    def with_loss(self, logs: dict) -> dict:
        """Add the sum of the peers' losses to the logs, where these are shown."""
        names = [f"{member.student.name}_loss" for member in self.members]
        if not set(names) <= set(logs):
            return logs
        return {"loss": sum(logs[name] for name in names), **logs}
