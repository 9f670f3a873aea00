"""A teacher of several members whose predictions are averaged."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import keras
from keras import ops

from keras_distill.taps import Tap
from keras_distill.teachers.base_teacher import HEAD, INPUT_GRADIENT, BaseTeacher


class AveragingTeacher(BaseTeacher):
    """Several members whose predictions are averaged; what ensembles and peers share.

    Args:
        members: models over the same inputs and classes.
        average: `"arithmetic"` or `"geometric"`.
        weights: of the members; they sum to one.
        portions: as in `kd.BaseTeacher`.
    """

    lacks: ClassVar[dict] = {
        INPUT_GRADIENT: "An ensemble has no gradient with respect to the input. Use one "
        "of its members as the teacher.",
        HEAD: "An ensemble has no one last layer: its members' predictions are averaged. "
        "Compare logits by kd.losses.SoftTarget, or use one of its members as the "
        "teacher.",
    }

    def __init__(
        self,
        members: Sequence[keras.Model],
        average: str,
        weights: Sequence[float],
        *,
        portions: int = 1,
    ):
        super().__init__(members, portions=portions)
        self.members = self.models
        self.average, self.weights = average, list(weights)

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Run each tapped member; an averaged output is a list, one tensor a member."""
        taps = tuple(taps)
        self._check_gradients(taps)
        tensors = [
            self._run(member, inputs, self.member_taps(index, taps))
            for index, member in enumerate(self.members)
        ]
        return self.combine(tensors, taps)

    def combine(self, tensors: Sequence[dict], taps: Iterable[Tap]) -> dict:
        """Return the knowledge in the tapped tensors of each member."""
        knowledge = {}
        for tap in taps:
            if is_averaged(tap):
                knowledge[tap] = [of_member[tap] for of_member in tensors]
            else:
                index, inner = self._split(tap)
                knowledge[tap] = tensors[index][inner]
        return knowledge

    def member_taps(self, index: int, taps: Iterable[Tap]) -> list[Tap]:
        """Return one member's taps for taps of the ensemble."""
        pairs = [(index, tap) if is_averaged(tap) else self._split(tap) for tap in taps]
        return [inner for member, inner in pairs if member == index]

    def locate(self, tap: Tap) -> tuple[keras.Model, Tap]:
        """Return the member that a tap is in, and the tap of that member."""
        index, inner = self._split(tap)
        return self.members[index], inner

    def logits(self, knowledge, temperature=1.0):
        """Return the logits whose softmax at `temperature` is the averaged prediction.

        Those of one member are returned as they are.
        """
        if not isinstance(knowledge, list):
            return knowledge
        return averaged(knowledge, self.weights, self.average, temperature)

    def _split(self, tap: Tap) -> tuple[int, Tap]:
        index, inner = tap.of_member()
        if index is None or index >= len(self.members):
            raise ValueError(
                f"An ensemble's layer is tapped as '<member>/<path>', member 0 to "
                f"{len(self.members) - 1}, as in '0/{inner.path}'; got '{tap.path}'."
            )
        return index, inner


def is_averaged(tap: Tap) -> bool:
    """Whether a tap is of every member: the output that is averaged."""
    return tap.is_output and tap.of_member()[0] is None


def averaged(logits: Sequence, weights: Sequence, average: str, temperature=1.0):
    """Return the logits whose softmax at `temperature` is the averaged prediction."""
    members = [ops.cast(z, "float32") for z in logits]
    if len({z.shape[-1] for z in members}) > 1:
        raise ValueError(
            "The members of an ensemble must have the same classes; their logits "
            f"have {[z.shape[-1] for z in members]}."
        )
    if average == "geometric" or len(members) == 1:
        return sum(w * z for w, z in zip(weights, members, strict=True))
    log_probabilities = [
        ops.log(w) + ops.log_softmax(z / temperature, axis=-1)
        for w, z in zip(weights, members, strict=True)
    ]
    return temperature * ops.logsumexp(ops.stack(log_probabilities), axis=0)
