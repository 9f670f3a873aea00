"""A teacher of several members whose predictions are averaged."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import keras
from keras import ops

from keras_distill.data.preparation import of_member
from keras_distill.taps import Tap
from keras_distill.teachers.base_teacher import (
    CLASSES,
    HEAD,
    INPUT_GRADIENT,
    LABELS,
    VALUES,
    BaseTeacher,
    Request,
)
from keras_distill.teachers.teacher import of_classes

# The temperature above which predictions are taken to be close to each other.
_HIGH = 20.0


class AveragingTeacher(BaseTeacher):
    """Several members whose predictions are averaged; what ensembles and peers share.

    Args:
        members: models over the same inputs and classes.
        average: `"arithmetic"` or `"geometric"`.
        weights: of the members; they sum to one.
        portions: as in `kd.BaseTeacher`.
        predicts: what the members predict, as in `EnsembleTeacher`. Default: what the
            loss reads.
        classes: of each member, those that are averaged, None for all. Default: all.
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
        predicts: str | None = None,
        classes: Sequence[Sequence[int] | None] | None = None,
    ):
        super().__init__(members, portions=portions)
        check_predicts(predicts, average)
        self.members = self.models
        self.predicts, self.classes = predicts, classes
        self.average, self.weights = average, list(weights)

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Run each tapped member; an averaged output is a list, one tensor a member."""
        taps = tuple(taps)
        self._check_gradients(taps)
        tensors = [
            self._run(member, of_member(inputs, index), self.member_taps(index, taps))
            for index, member in enumerate(self.members)
        ]
        return self.combine(tensors, taps)

    def combine(self, tensors: Sequence[dict], taps: Iterable[Tap]) -> dict:
        """Return the knowledge in the tapped tensors of each member."""
        if self.classes is not None:
            parts = zip(tensors, self.classes, self.members, strict=True)
            tensors = [of_classes(*part) for part in parts]
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

    def logits(self, knowledge, temperature=1.0, predicts=CLASSES):
        """Return the logits whose prediction at `temperature` is the averaged one.

        Those of one member are returned as they are.
        """
        if not isinstance(knowledge, list):
            return knowledge
        predicts = self.predicts or predicts
        return averaged(knowledge, self.weights, self.average, temperature, predicts)

    def check(self, requests: Sequence[Request]) -> None:
        """Check that a term reads what the members predict, and has what it needs."""
        super().check(requests)
        for request in requests:
            expected = request.predicts or self.predicts
            averages = any(map(is_averaged, request.taps))
            if averages and self.predicts not in (None, expected):
                raise ValueError(
                    f"The members of this ensemble predict {self.predicts}, but the loss "
                    f"of term '{request.term}' reads their outputs as {expected}. Use a "
                    f"loss for {self.predicts}, or pass predicts='{expected}'."
                )

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


def averaged(
    logits: Sequence,
    weights: Sequence,
    average: str,
    temperature=1.0,
    predicts: str = CLASSES,
):
    """Return the logits whose prediction at `temperature` is the members' average.

    Args:
        logits: of each member, `(..., K)`.
        weights: of the members; they sum to one.
        average: `"arithmetic"` or `"geometric"`.
        temperature: of the softmax or sigmoid.
        predicts: `"classes"`, one softmax over K; `"labels"`, K sigmoids; `"values"`, K
            numbers, of which the average is the mean.
    """
    members = [ops.cast(z, "float32") for z in logits]
    _check_widths(members, predicts)
    if len(members) == 1:
        return members[0]
    check_predicts(predicts, average)
    if average == "geometric" or predicts == VALUES:
        return sum(w * z for w, z in zip(weights, members, strict=True))
    members = [z / temperature for z in members]
    plain, of_close = (
        (_odds, _mean_odds)
        if predicts == LABELS
        else (_log_mean_of_classes, _log_mean_of_close)
    )

    def at_high():
        mean, close = of_close(members, weights)
        return ops.where(close, mean, plain(members, weights))

    # At a high temperature rounding errors of logarithms would be magnified.
    if isinstance(temperature, (int, float)):
        mean = at_high() if temperature > _HIGH else plain(members, weights)
    else:
        high = ops.convert_to_tensor(temperature, "float32") > _HIGH
        mean = ops.cond(high, at_high, lambda: plain(members, weights))
    return temperature * mean


def check_predicts(predicts: str | None, average: str) -> None:
    """Check that what members predict is known, and has such an average."""
    if predicts not in (None, CLASSES, LABELS, VALUES):
        raise ValueError(
            f"predicts is 'classes', 'labels' or 'values'; got {predicts!r}."
        )
    if predicts == VALUES and average == "geometric":
        raise ValueError(
            "Values, which may be negative, have no geometric average. Pass "
            "average='arithmetic', their mean."
        )


def _log_mean(logs: Sequence, weights: Sequence):
    """Return the logarithm of the weighted mean of exponentials."""
    parts = [ops.log(w) + x for w, x in zip(weights, logs, strict=True)]
    return ops.logsumexp(ops.stack(parts), axis=0)


def _log_mean_of_classes(members: Sequence, weights: Sequence):
    """Return the log of the mean of softmaxes."""
    return _log_mean([ops.log_softmax(z, axis=-1) for z in members], weights)


def _odds(members: Sequence, weights: Sequence):
    """Return the log-odds of the mean of sigmoids."""
    sigmoid = keras.activations.log_sigmoid
    yes, no = (
        _log_mean([sigmoid(sign * z) for z in members], weights) for sign in (1.0, -1.0)
    )
    return yes - no


def _mean_odds(members: Sequence, weights: Sequence):
    """Return the log-odds of the mean of sigmoids near 1/2, and where they are."""
    close = ops.max(ops.abs(ops.stack(members)), axis=0) < 1.0
    members = [ops.where(close, z, 0.0) for z in members]
    mean = sum(w * ops.tanh(z / 2) for w, z in zip(weights, members, strict=True))
    return 2.0 * ops.arctanh(mean), close


def _log_mean_of_close(members: Sequence, weights: Sequence):
    """Return the log of the mean of softmaxes near 1 / K, and which rows are, `(..., 1)`.

    It is up to a constant of the row; a class of -inf in all members stays so.
    """
    absent = ops.all(ops.stack(members) == -float("inf"), axis=0)
    members = [ops.where(absent, 0.0, z) for z in members]
    count = ops.sum(
        ops.cast(ops.logical_not(absent), "float32"), axis=-1, keepdims=True
    )
    spread, total = [], 0.0
    for weight, z in zip(weights, members, strict=True):
        z = z - ops.max(ops.where(absent, -float("inf"), z), axis=-1, keepdims=True)
        z = ops.where(absent, 0.0, z)
        spread.append(z)
        # e^z / mean of e^z, less 1.
        grown = ops.expm1(ops.maximum(z, -1.0))
        mean = ops.sum(grown, axis=-1, keepdims=True) / count
        total += weight * (grown - mean) / (1.0 + mean)
    close = ops.min(ops.stack(spread), axis=(0, -1))[..., None] > -1.0
    return ops.where(absent, -float("inf"), ops.log1p(total)), close


def check_same_outputs(outputs: Sequence) -> None:
    """Check that members return the same structure of outputs."""
    for other in outputs[1:]:
        try:
            keras.tree.assert_same_structure(outputs[0], other)
        except (TypeError, ValueError) as error:
            shapes = [
                keras.tree.map_structure(lambda x: tuple(x.shape), x) for x in outputs
            ]
            raise ValueError(
                "The members of an ensemble must have the same outputs: one each, or "
                f"lists or dicts of the same; got outputs of the shapes {shapes}. Pass "
                "models of the outputs that are averaged."
            ) from error


def _check_widths(members: Sequence, predicts: str) -> None:
    widths = [z.shape[-1] for z in members]
    if len(set(widths)) > 1:
        raise ValueError(
            "The members of an ensemble must have the same classes; their logits "
            f"have {widths}."
        )
    if predicts == CLASSES and widths[0] == 1:
        raise ValueError(
            "An ensemble whose members have one output has no classes to average over: "
            "the softmax of one logit is 1. Pass predicts='labels' for the logit of a "
            "binary classifier, or predicts='values' for a regression."
        )
