"""One of several students that teach each other."""

from collections.abc import Sequence

from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.term import Term
from keras_distill.teachers.peers import Peers


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

    def total(self, parts: dict):
        """Weigh the parts, of which those of pairs are means over the others."""
        others = len(self.teacher.members)
        parts = {
            name: value / others if self._is_of_pair(name) else value
            for name, value in parts.items()
        }
        return super().total(parts)

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
