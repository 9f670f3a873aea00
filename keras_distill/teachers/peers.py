"""What each of several models that train together learns from the others."""

from collections.abc import Iterable, Mapping, Sequence

import keras

from keras_distill.taps import Tap
from keras_distill.teachers.averaging_teacher import AveragingTeacher, is_averaged


class Peers(AveragingTeacher):
    """All peers but one, whose layers are tapped by their index among these.

    They run in the student's step, which passes their tensors on.

    Args:
        peers: all of them.
        learner: index of the one that learns.
    """

    def __init__(self, peers: Sequence[keras.Model], learner: int):
        self.indices = [index for index in range(len(peers)) if index != learner]
        others = [peers[index] for index in self.indices]
        super().__init__(others, "arithmetic", [1.0 / len(others)] * len(others))

    def taps_of(self, peer: int, taps: Iterable[Tap]) -> list[Tap]:
        """Return the taps that one peer must provide, by its index among all."""
        if peer not in self.indices:
            return []
        return list(self.member_taps(self.indices.index(peer), taps).values())

    def knowledge(
        self, tensors: Mapping[int, Mapping[Tap, object]], taps: Iterable[Tap]
    ) -> dict[Tap, object]:
        """Return what a call would, from what the peers' own runs returned.

        Args:
            tensors: by tap, by the peer's index among all.
            taps: of these peers.
        """
        knowledge = {}
        for tap in taps:
            if is_averaged(tap):
                knowledge[tap] = [tensors[index][tap] for index in self.indices]
            else:
                member, inner = self._split(tap)
                knowledge[tap] = tensors[self.indices[member]][inner]
        return knowledge
