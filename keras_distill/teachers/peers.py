"""The other peers of one that trains together with them."""

from collections.abc import Iterable, Mapping, Sequence

import keras

from keras_distill.taps import Tap
from keras_distill.teachers.averaging_teacher import AveragingTeacher


class Peers(AveragingTeacher):
    """All peers but one, whose layers are tapped by their index among these.

    They run in the student's step, which passes their tensors on. `learner` is the index
    of the peer that learns.
    """

    is_apart = False
    checks_first_batch = False

    def __init__(self, peers: Sequence[keras.Model], learner: int):
        self.learner = learner
        self.indices = [index for index in range(len(peers)) if index != learner]
        others = [peers[index] for index in self.indices]
        super().__init__(others, "arithmetic", [1.0 / len(others)] * len(others))

    def taps_of(self, peer: int, taps: Iterable[Tap]) -> list[Tap]:
        """Return the taps that one peer must provide, by its index among all."""
        if peer not in self.indices:
            return []
        return self.member_taps(self.indices.index(peer), taps)

    def knowledge(self, tensors: Mapping[int, dict], taps: Iterable[Tap]) -> dict:
        """Return the knowledge in tensors by tap, by the peer's index among all."""
        return self.combine([tensors[index] for index in self.indices], taps)
