"""Mutual learning: peers that train together and teach each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import taps
from keras_distill._backend.jax_state import state_of, values_of
from keras_distill.data.selection import Selection, select
from keras_distill.distillers import term_checks as checks
from keras_distill.distillers.compiling import KeptCompile
from keras_distill.distillers.copied import copied
from keras_distill.distillers.gradient_scores import scores
from keras_distill.distillers.peer import Peer, Peers
from keras_distill.distillers.step import TrainStep
from keras_distill.distillers.term import Term
from keras_distill.losses import SoftTarget
from keras_distill.teachers.copies import Copies
from keras_distill.training.fit import Fitting


@keras.saving.register_keras_serializable(package="keras_distill")
class MutualDistiller(TrainStep, Fitting, KeptCompile, keras.Model):
    """Train two or more peers on labels and on what each knows.

    One step runs each peer once, in training form; every other peer sees what came out
    as knowledge, without gradient:

        total = sum_i (label_weight * label_loss_i
                       + 1 / (M - 1) * sum_{j != i} sum_t weight_t * term_t(i, j))

    One optimiser updates all, at once: the paper updates one after another. The logs
    show each peer's parts by its name. `predict` gives one output a peer; each peer ends
    as a plain Keras model in `peers`. With `refresh` it is codistillation: peers learn
    from copies of the others, run in inference form, that are renewed every so many
    steps.

    Args:
        peers: two or more `keras.Model` of different names, of any architecture.
        terms: what each learns from each other; one whose adapter is a layer has a copy
            of it for each pair. Default: soft targets at temperature 1.
        label_weight: of the compiled loss, a number >= 0 or a schedule. Default 1.
        refresh: renew the copies every so many steps. Default: no copies.
        peer_inputs: the peers' part of the batch's inputs, as `student_inputs` of
            `Distiller`. Default: all.
        sample_ids: as in `Distiller`.
        name: model name.

    Raises:
        TypeError: a peer or a term is of another kind.
        ValueError: fewer than two peers, two of one name, other class counts, and what
            `Distiller` raises.

    Example:
        >>> mutual = kd.MutualDistiller([small, large])
        >>> mutual.compile(
        ...     "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> mutual.fit(train, epochs=20)
        >>> small.save("small.keras")

    Source:
        Zhang et al. 2018, Deep mutual learning; with copies Anil et al. 2018, Large
        scale distributed neural network training through online distillation.
    """

    def __init__(
        self,
        peers: Sequence[keras.Model],
        terms: Sequence[Term] | None = None,
        *,
        label_weight: float | LearningRateSchedule = 1.0,
        refresh: int | None = None,
        peer_inputs: Selection = None,
        sample_ids: str | int | None = None,
        name: str | None = None,
    ):
        _are_peers(peers)
        if refresh is not None and refresh < 1:
            raise ValueError(f"refresh is a number of steps, 1 or more; got {refresh}.")
        terms = [Term(SoftTarget(1.0))] if terms is None else list(terms)
        checks.are_terms(terms)
        super().__init__(name=name)
        self.peers = list(peers)
        self.sources, self.label_source = terms, label_weight
        self.refresh, self.sample_ids = refresh, sample_ids
        self.peer_inputs = peer_inputs
        self.copies = Copies(self.peers) if refresh else None
        self.members = [
            Peer(
                peer,
                Peers(self.peers, place),
                terms=terms,
                label_weight=label_weight,
                student_inputs=peer_inputs,
                teacher_inputs=peer_inputs,
                sample_ids=sample_ids,
            )
            for place, peer in enumerate(self.peers)
        ]
        self.asked = [self._asked_of(place) for place in range(len(self.peers))]
        self.built = all(member.built for member in self.members)
        if self.built:
            _are_of_the_same_classes(self.members)

    def compile(
        self, optimizer="rmsprop", loss=None, metrics=None, **arguments
    ) -> None:
        """Take an optimiser for all peers, and a loss and metrics for each.

        Args:
            optimizer, loss, metrics: as in `keras.Model.compile`; metrics are names or
                are copied.
            **arguments: the others of `keras.Model.compile`.
        """
        super().compile(optimizer, **arguments)
        self.keep_compile(loss=loss, metrics=metrics, **arguments)
        for member in self.members:
            member.compile(self.optimizer, loss, metrics=copied(metrics), **arguments)

    @property
    def followers(self) -> Copies | None:
        """Give the layer of copies."""
        return self.copies

    @property
    def metrics(self) -> list[keras.Metric]:
        """Give the running means of all peers' logs."""
        return [metric for member in self.members for metric in member.metrics]

    def means(self, training: bool) -> dict:
        """Give the logs: each peer's under its name, and the sum of their losses."""
        found = {}
        for member in self.members:
            found |= _named(member, member.means(training))
        return {"loss": _loss_of(self.members, found), **found}

    def call(self, inputs, training=None):
        """Give each peer's prediction, in a list."""
        if not self.built:
            self._bind_to(inputs)
        inputs = select(inputs, self.peer_inputs)
        return [peer(inputs, training=training) for peer in self.peers]

    def can_fit(self, batch) -> None:
        """Check what is there before training."""
        for member in self.members:
            member.can_fit(batch)
        if batch is not None:
            _are_of_the_same_classes(self.members)
        self.built = True

    def part_names(self) -> list[str]:
        """Give the names of the parts of the loss in the logs."""
        return [
            f"{member.student.name}_{part}"
            for member in self.members
            for part in member.part_names()
        ]

    def replicated_layers(self) -> list[keras.Layer]:
        """Give the layers whose moving means are to be alike on all replicas."""
        found = [x for member in self.members for x in member.replicated_layers()]
        return found if self.copies is None else [*found, self.copies]

    def test_step(self, *arguments):
        """Evaluate every peer; give the logs, on JAX beside the state."""
        *state, data = arguments
        logs, values = {}, values_of(self, *state) if state else None
        for member in self.members:
            if state:
                own, moved = member.test_step(state_of(member, values), data)
                values |= values_of(member, moved)
            else:
                own = member.test_step(data)
            logs |= _named(member, own)
        logs = {"loss": _loss_of(self.members, logs), **logs}
        return (logs, state_of(self, values)) if state else logs

    def get_config(self) -> dict:
        """Give the arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "peers": [serialize(peer) for peer in self.peers],
            "terms": [serialize(term) for term in self.sources],
            "label_weight": serialize(self.label_source),
            "refresh": self.refresh,
            "peer_inputs": serialize(self.peer_inputs),
            "sample_ids": self.sample_ids,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> MutualDistiller:
        """Make a distiller from its arguments."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))

    def get_build_config(self) -> dict | None:
        """Give the shapes of all taps, from which adapters are built."""
        if not self.built:
            return None
        return {"members": [member.get_build_config() for member in self.members]}

    def build_from_config(self, config: dict) -> None:
        """Build the adapters as they were."""
        for member, own in zip(self.members, config["members"], strict=True):
            member.build_from_config(own)
        self.built = True

    def _asked_of(self, place: int) -> tuple:
        """Give what all others want to know of a peer."""
        others = [member for i, member in enumerate(self.members) if i != place]
        taps = [
            member.teacher.asked_of(place, member.teacher_taps) for member in others
        ]
        return tuple(dict.fromkeys(tap for asked in taps for tap in asked))

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Build the peers' metrics too."""
        if data_batch is None:
            for _, _, batches in iterator:
                data_batch = next(iter(batches))
                break
        super()._symbolic_build(data_batch=data_batch)
        for member in self.members:
            member._symbolic_build(data_batch=data_batch)

    def _bind_to(self, x) -> None:
        for member in self.members:
            if not member.built:
                member.bind_to(x)
        _are_of_the_same_classes(self.members)
        self.built = True

    def _know(self, x, y) -> dict:
        """Move what schedules move; with copies, renew and run those."""
        for member in self.members:
            member.move()
        if self.copies is None:
            return {}
        self.copies.renew(self.optimizer.iterations % self.refresh == 0)
        inputs = select(x, self.peer_inputs)
        return {
            place: taps.up_to(copy, inputs, asked) if asked else {}
            for place, (copy, asked) in enumerate(
                zip(self.copies.models, self.asked, strict=True)
            )
        }

    def _learn(self, x, y, sample_weight, knowledge: dict) -> tuple:
        """Run each peer once; give the total and each peer's own."""
        runs, inputs = [], select(x, self.peer_inputs)
        for member, asked in zip(self.members, self.asked, strict=True):
            wanted = dict.fromkeys([*member.student_taps, *asked])
            runs.append(
                taps.forward(
                    member.student, inputs, wanted, training=True, scores=scores(y)
                )
            )
        known = knowledge or {place: tapped for place, (_, tapped) in enumerate(runs)}
        known = keras.tree.map_structure(ops.stop_gradient, known)
        founds = []
        for member, run in zip(self.members, runs, strict=True):
            told = member.teacher.told(known, member.teacher_taps)
            founds.append(member._judge(x, y, sample_weight, *run, told))
        return sum(found[0] for found in founds), founds

    def _note(self, x, y, sample_weight, total, founds) -> dict:
        """Add the step's values to the running means and metrics; give the logs."""
        logs = {}
        for member, found in zip(self.members, founds, strict=True):
            logs |= _named(member, member._note(x, y, sample_weight, *found))
        return {"loss": _loss_of(self.members, logs), **logs}


def _are_peers(peers) -> None:
    for peer in peers:
        checks.is_student(peer)
    if len(peers) < 2:
        raise ValueError(
            f"Mutual learning takes two peers or more; got {len(peers)}. For one net "
            "that teaches itself there is kd.SelfDistiller."
        )
    twice = [name for name, n in Counter(p.name for p in peers).items() if n > 1]
    if twice:
        raise ValueError(
            f"Peers must have different names, as the logs show each; {twice} are there "
            "more than once. Give each model a name."
        )


def _are_of_the_same_classes(members) -> None:
    counts = {member.student.name: member.classes for member in members}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"The class counts differ: {counts}. Peers must predict the same classes in "
            "the same order."
        )


def _named(member: Peer, logs: dict) -> dict:
    return {f"{member.student.name}_{name}": value for name, value in logs.items()}


def _loss_of(members, logs: dict):
    return sum(logs[f"{member.student.name}_loss"] for member in members)
