"""One of several models that teach each other."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.term import Term
from keras_distill.taps import Tap
from keras_distill.teachers.ensemble import EnsembleTeacher, is_shared


class Peers(EnsembleTeacher):
    """What a peer learns from: all others, whose layers are tapped by their places.

    Args:
        peers: all of them.
        place: of the one that learns.
    """

    def __init__(self, peers: Sequence[keras.Model], place: int):
        self.places = [other for other in range(len(peers)) if other != place]
        self.members = tuple(peers[other] for other in self.places)
        self.weights = [1.0 / len(self.places)] * len(self.places)
        self.average = "arithmetic"
        self._norms = {}

    def asked_of(self, place: int, taps) -> list[Tap]:
        """Give the taps that a member is asked for, by its place among all."""
        found = []
        for tap in taps:
            if is_shared(tap):
                found.append(tap)
            else:
                member, own = self.owner(tap)
                found += [own] * (self.places[member] == place)
        return found

    def told(self, known: dict, taps) -> dict[Tap, object]:
        """Give what a call would, of what the members' own taps gave.

        Args:
            known: tensors by tap, by the member's place among all.
            taps: what to know.
        """
        found = {}
        for tap in taps:
            if is_shared(tap):
                found[tap] = [known[place][tap] for place in self.places]
            else:
                member, own = self.owner(tap)
                found[tap] = known[self.places[member]][own]
        return found


class Peer(Distiller):
    """One peer and its terms, a copy for each of the others.

    Args:
        student: the peer.
        teacher: the others.
        terms: what it learns from each.
        **arguments: of `Distiller`.
    """

    def __init__(self, student, teacher: Peers, terms: Sequence[Term], **arguments):
        pairs = [
            _of_pair(term, place, other.name)
            for term in terms
            if term.loss.compares_teacher
            for place, other in enumerate(teacher.members)
        ]
        self.pairs = {term.name for term in pairs}
        alone = [term.copy() for term in terms if not term.loss.compares_teacher]
        super().__init__(student, teacher, terms=pairs + alone, **arguments)

    def _total(self, parts: dict):
        """Take the mean over the others."""
        others = len(self.teacher.members)
        shares = {
            name: value / others if name in self.pairs else value
            for name, value in parts.items()
        }
        return super()._total(shares)


def _of_pair(term: Term, place: int, name: str) -> Term:
    for tap in (*term.student, *term.teacher):
        if tap.is_gradient:
            raise ValueError(
                f"The term '{term.name}' taps '{tap}', a gradient by the input, which "
                "peers do not tell each other. Tap layers or logits."
            )
    teacher = [Tap(f"{place}/{tap.path}", tap.call, tap.side) for tap in term.teacher]
    return term.copy(teacher, f"{term.name}_from_{name}")
