"""Mutual learning: peers that train together and teach each other."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill._backend import keras_functions
from keras_distill._backend.configuration import summary
from keras_distill._backend.number_checks import check_integers
from keras_distill.data.entry import Entry
from keras_distill.data.preparation import of_member
from keras_distill.data.selection import Selection
from keras_distill.distillers import log_names, term_checks
from keras_distill.distillers.entering import Entering
from keras_distill.distillers.kept_compile import KeptCompile, copied
from keras_distill.distillers.mutual_step import MutualStep
from keras_distill.distillers.own_methods import keras_arguments
from keras_distill.distillers.peer import Peer
from keras_distill.distillers.task_term import TaskTerm
from keras_distill.distillers.term import Term
from keras_distill.distillers.tracking import params_of_models, params_of_terms
from keras_distill.losses.schedules import BALANCED
from keras_distill.teachers.base_teacher import check_stateless
from keras_distill.teachers.copies import Copies
from keras_distill.teachers.peers import Peers
from keras_distill.training.fit import Fitting


@keras.saving.register_keras_serializable(package="keras_distill")
class MutualDistiller(MutualStep, Entering, Fitting, KeptCompile, keras.Model):
    r"""Train two or more peers on labels and on each other's knowledge.

    One step runs each peer once, in training form; its tensors are the knowledge of
    every other peer, without gradient:

    .. math::

        \mathrm{total} = \sum_{i=1}^{M} \left( \lambda \, \ell_{\mathrm{label},i}
            + \frac{1}{M - 1} \sum_{j \ne i} \sum_t w_t \, \mathrm{term}_t(i, j) \right)

    with lambda, the `label_weight`, and the weight w_t of each term. One optimizer
    updates all at once, where the paper updates one after another. The logs show each
    peer's parts under its name. `predict` returns one output per peer; each peer
    remains a plain Keras model in `peers`. With `refresh` it is codistillation: peers
    learn from copies of the others, run in inference form, that are renewed every
    `refresh` steps. Peers may share layers, such as a trunk: these get the gradients of
    all peers' losses, summed, in the one update.

    Args:
        peers: two or more `keras.Model` of different names, of any architecture.
        terms: what each learns from every other; an adapter that is a layer is copied for
            each pair. Default: predictions at temperature 1, by the loss that fits the
            one passed to `compile`, as in `Distiller`.
        label_weight: weight of the compiled loss, a number >= 0 or a schedule. Default 1.
        refresh: number of steps after which copies are renewed. Default: no copies.
        peer_inputs: the peers' part of the batch's inputs, as `inputs` of `Distiller`: a
            random layer runs once for all. Default: all.
        sample_ids: as in `Distiller`.
        name: model name.

    Raises:
        TypeError: a peer or a term is of another kind.
        ValueError: fewer than two peers, two of one name, different class counts, and
            what `Distiller` raises.

    Example:
        >>> mutual = kd.MutualDistiller([small, large])
        >>> mutual.compile(
        ...     "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> mutual.fit(train, epochs=2)
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
        _check_peers(peers)
        if refresh is not None:
            check_integers(1, refresh=refresh)
        terms = (
            [TaskTerm(temperature=1.0)] if terms is None else term_checks.listed(terms)
        )
        term_checks.check_terms(terms)
        _check_weights(terms)
        super().__init__(name=name)
        self.peers = list(peers)
        self.sources, self.label_source = terms, label_weight
        self.refresh, self.sample_ids = refresh, sample_ids
        self.peer_inputs = peer_inputs
        self.copies = Copies(self.peers) if refresh else None
        check_stateless(self.copies.models if refresh else ())
        self.members = [
            Peer(
                peer,
                Peers(self.peers, index),
                terms=terms,
                label_weight=label_weight,
                inputs=peer_inputs,
                sample_ids=sample_ids,
            )
            for index, peer in enumerate(self.peers)
        ]
        self.peer_taps = [self._taps_of(index) for index in range(len(self.peers))]
        self.built = all(member.built for member in self.members)
        if self.built:
            _check_classes(self.members)

    def compile(
        self,
        optimizer: str | keras.Optimizer = "rmsprop",
        loss: Any = None,
        metrics: Any = "auto",
        weighted_metrics: Any = "auto",
        **arguments: Any,
    ) -> None:
        """Configure the training: one optimizer for all peers, loss and metrics for each.

        Args:
            optimizer, loss, metrics, weighted_metrics: as in `keras.Model.compile`;
                metrics that are not names are copied.
            **arguments: other arguments of `keras.Model.compile`.
        """
        own = keras_arguments(arguments)
        own.pop("loss_weights", None)
        super().compile(optimizer, **own)
        given = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        self.keep_compile(loss=loss, **given, **arguments)
        for member in self.members:
            member.compile(self.optimizer, loss, **copied(given), **arguments)
        self._follow_task()

    def _follow_task(self) -> None:
        """Note the terms for what the peers predict, which is the same for all."""
        for bound in self.members[0].terms.values():
            self.sources = [term.for_task(bound.predicts) for term in self.sources]

    @property
    def metrics(self) -> list[keras.Metric]:
        """The running means of all peers' logs."""
        return [metric for member in self.members for metric in member.metrics]

    def means(self, training: bool) -> dict:
        """Return the logs: each peer's under its name, and the sum of their losses."""
        logs = {}
        for member in self.members:
            logs |= member.named(member.means(training))
        return self.with_loss(logs)

    def call(self, inputs, training=None):
        """Return the predictions of all peers, in a list."""
        if not self.built:
            self.bind_to(inputs)
        inputs = self.entry.student_alone(inputs, bool(training))
        return [
            peer(of_member(inputs, index), training=training)
            for index, peer in enumerate(self.peers)
        ]

    @property
    def entry(self) -> Entry:
        """What all peers take of a batch."""
        return Entry(
            self.peer_inputs, None, None, self.sample_ids, self.peers, one_sided=True
        )

    def check_fit(self, batch) -> None:
        """Check peers, data and loss before the first step."""
        for member in self.members:
            member.check_fit(batch)
        self._follow_task()
        log_names.check_peers_names(
            f"{member.student.name}_{name}"
            for member in self.members
            for name in ["loss", *member.part_names(), *member.logged_names()]
        )
        if batch is not None:
            _check_classes(self.members)
        self.built = True

    def check_validation(self, labels, has_validation: bool) -> None:
        """Check, before `fit` begins, that there is something to evaluate."""
        for member in self.members:
            member.check_validation(labels, has_validation)

    def check_test(self, batch) -> None:
        """Check labels and loss before the first evaluation of a batch."""
        for member in self.members:
            member.check_test(batch)

    def check_scheduled(self) -> None:
        """Check the temperatures, which callbacks may have assigned to."""
        for member in self.members:
            member.check_scheduled()

    def cause_of_nan(self, name: str) -> str:
        """Return why a part of a peer's loss may be NaN, beside values that are not finite."""
        causes = (
            member.cause_of_nan(name.removeprefix(f"{member.student.name}_"))
            for member in self.members
            if name.startswith(f"{member.student.name}_")
        )
        return next(causes, "")

    def part_names(self) -> list[str]:
        """Return the names of the parts of the loss in the logs."""
        return [
            f"{member.student.name}_{part}"
            for member in self.members
            for part in member.part_names()
        ]

    def get_params(self) -> dict[str, str | int | float | bool]:
        """Return what is trained and how, as `Distiller.get_params` does.

        Example:
            >>> mutual = kd.MutualDistiller([student, teacher])
            >>> parameters = mutual.get_params()
        """
        found = {
            "distiller": type(self).__name__,
            **params_of_models("peers", self.peers),
        }
        found["label_weight"] = summary(self.label_source)
        for member in self.members:
            found |= {
                f"{member.student.name}.{name}": value
                for name, value in params_of_terms(member.terms).items()
            }
        return found

    def replicated_layers(self) -> list[keras.Layer]:
        """Return the layers whose moving statistics all replicas share."""
        layers = [x for member in self.members for x in member.replicated_layers()]
        return layers if self.copies is None else [*layers, self.copies]

    def models_of_state(self) -> list[keras.Model]:
        """Return the mutual distiller and its peers' distillers."""
        return [self, *self.members]

    def build_state(self, batch) -> None:
        """Build metrics, loss and optimizer, those of the peers too."""
        super().build_state(batch)
        for member in self.members:
            member.build_state(batch)

    def export(
        self, filepath: Any, format: str = "tf_saved_model", **arguments: Any
    ) -> None:
        """Raise an error: each peer is exported by itself.

        Raises:
            ValueError: always, with the peers' names.
        """
        names = [peer.name for peer in self.peers]
        raise ValueError(
            f"A MutualDistiller has several models, {names}, and one file holds one of "
            "them. Export a peer: mutual.peers[0].export(filepath)."
        )

    def get_config(self) -> dict:
        serialize = keras.saving.serialize_keras_object
        return {
            "peers": [serialize(peer) for peer in self.peers],
            "terms": [serialize(term) for term in self.sources],
            "label_weight": serialize(self.label_source),
            "refresh": self.refresh,
            "peer_inputs": keras_functions.serialize(self.peer_inputs),
            "sample_ids": self.sample_ids,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "MutualDistiller":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))

    def get_build_config(self) -> dict | None:
        if not self.built:
            return None
        return {"members": [member.get_build_config() for member in self.members]}

    def build_from_config(self, config: dict) -> None:
        for member, own in zip(self.members, config["members"], strict=True):
            member.build_from_config(own)
        self.built = True

    def _taps_of(self, index: int) -> tuple:
        """Return the taps of a peer that all others need."""
        others = [member for i, member in enumerate(self.members) if i != index]
        wanted = [
            member.teacher.taps_of(index, member.teacher_taps) for member in others
        ]
        return tuple(dict.fromkeys(tap for taps in wanted for tap in taps))

    def bind_to(self, x) -> None:
        """Create the adapters of all peers from a batch's inputs."""
        for member in self.members:
            if not member.built:
                member.bind_to(x)
        _check_classes(self.members)
        self.built = True


def _check_weights(terms: Sequence[Term]) -> None:
    """Check that no weight is to be measured, for which there is no one student."""
    if names := [term.name for term in terms if term.weight == BALANCED]:
        raise ValueError(
            f"The weight of {', '.join(names)} is '{BALANCED}', which a Distiller measures "
            "for its student; peers are several. Pass a number or a schedule."
        )


def _check_peers(peers) -> None:
    for peer in peers:
        term_checks.check_student(peer)
    if len(peers) < 2:
        raise ValueError(
            f"Mutual learning takes two or more peers; got {len(peers)}. For one model "
            "that teaches itself there is kd.SelfDistiller."
        )
    twice = [name for name, n in Counter(p.name for p in peers).items() if n > 1]
    if twice:
        raise ValueError(
            f"Peers must have different names, as the logs show each; {twice} occur "
            "more than once. Give each model a name."
        )


def _check_classes(members) -> None:
    counts = {member.student.name: member.classes for member in members}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"The class counts differ: {counts}. Peers must predict the same classes in "
            "the same order."
        )
