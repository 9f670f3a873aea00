"""One of several students that teach each other."""

from collections.abc import Sequence

from keras_distill.data.entry import Entry
from keras_distill.data.preparation import by_member, of_member
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.term import Term
from keras_distill.teachers.peers import Peers


class PeerEntry(Entry):
    """What one of several peers takes of a batch that all take.

    Args:
        teacher: the other peers.
        *arguments: of `Entry`.
    """

    def __init__(self, teacher: Peers, *arguments):
        super().__init__(*arguments, one_sided=True)
        self.peers = teacher

    def student_part(self, x, training: bool):
        """Return what the peer takes of a batch that has entered."""
        return of_member(super().student_part(x, training), self.peers.learner)

    def student_alone(self, x, training: bool = False):
        """Return what the peer takes of inputs."""
        return of_member(super().student_alone(x, training), self.peers.learner)

    def teacher_part(self, x):
        """Return what the others take of a batch that has entered."""
        inputs = super().student_part(x, False)
        return by_member([of_member(inputs, index) for index in self.peers.indices])


class Peer(Distiller):
    """One peer and its terms, a copy of each for every other peer.

    Args:
        student: the peer.
        teacher: the others.
        terms: what it learns from each.
        **arguments: of `Distiller`.
    """

    def __init__(self, student, teacher: Peers, terms: Sequence[Term], **arguments):
        pairs = [
            _of_pair(term, index, other.name)
            for term in terms
            if term.loss.compares_teacher
            for index, other in enumerate(teacher.members)
        ]
        alone = [term.copy() for term in terms if not term.loss.compares_teacher]
        super().__init__(student, teacher, terms=pairs + alone, **arguments)

    @property
    def entry(self) -> PeerEntry:
        """What the peer takes of a batch."""
        selections = self.shared_inputs, None, None, self.sample_ids
        return PeerEntry(self.teacher, *selections, [self.student])

    def averaged(self, parts: dict) -> dict:
        """Return the parts, of which those of pairs are means over the others."""
        others = len(self.teacher.members)
        return {
            name: value / others if self._is_of_pair(name) else value
            for name, value in parts.items()
        }

    def _is_of_pair(self, name: str) -> bool:
        bound = self.terms.get(name)
        return bound is not None and bound.term.loss.compares_teacher

    def named(self, logs: dict) -> dict:
        """Return logs under the peer's name."""
        return {f"{self.student.name}_{name}": value for name, value in logs.items()}


def _of_pair(term: Term, index: int, name: str) -> Term:
    for tap in (*term.student, *term.teacher):
        if tap.is_gradient:
            raise ValueError(
                f"The term '{term.name}' taps '{tap}', a gradient with respect to the "
                "input, which peers do not exchange. Tap layers or logits."
            )
    teacher = [tap.in_member(index) for tap in term.teacher]
    return term.copy(teacher, f"{term.name}_from_{name}")
