"""Ensembles: several models whose predictions are averaged, to teach and to predict."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import keras
from keras import ops

from keras_distill import taps as tapping
from keras_distill.taps import LOGITS, Tap, heads
from keras_distill.teachers.portions import count_of, in_portions
from keras_distill.teachers.teacher import Teacher, check


@keras.saving.register_keras_serializable(package="keras_distill")
class Ensemble(keras.Model):
    """Several models as one that predicts.

    It gives the logits whose softmax is the members' averaged prediction, at T = 1:

        arithmetic:  p = sum_m w_m softmax(z_m)
        geometric:   p = softmax(sum_m w_m z_m)

    so that it is evaluated and saved as any model. Given to a `Distiller`, it teaches
    as `kd.EnsembleTeacher`, which averages at the temperature of the loss.

    Args:
        models: two or more built models over the same inputs and classes.
        average: `"arithmetic"` (default) or `"geometric"`.
        weights: one positive number a model. Default: equal.
        name: model name.

    Raises:
        TypeError, ValueError: as in `kd.EnsembleTeacher`, and for models that end in
            probabilities.

    Example:
        >>> ensemble = kd.Ensemble([first, second, third])
        >>> ensemble.predict(images)

    Source:
        Furlanello et al. 2018, Born-again neural networks.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        average: str = "arithmetic",
        *,
        weights: Sequence[float] | None = None,
        name: str | None = None,
    ):
        shares = member_weights(models, average, weights)
        for model in models:
            heads.must_give_logits(model, "member")
        super().__init__(name=name)
        self.members = list(models)
        self.average = average
        self.shares = shares
        self.built = True

    def call(self, inputs, training=None):
        """Give the logits of the averaged prediction, `(..., K)`."""
        logits = [member(inputs, training=training) for member in self.members]
        return averaged(logits, self.shares, self.average)

    def compute_output_shape(self, input_shape):
        """Give the shape of one member's output."""
        return self.members[0].compute_output_shape(input_shape)

    def get_config(self) -> dict:
        """Give the arguments."""
        members = [keras.saving.serialize_keras_object(m) for m in self.members]
        return {
            "models": members,
            "average": self.average,
            "weights": self.shares,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> Ensemble:
        """Make an ensemble from its arguments."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))


class EnsembleTeacher(Teacher):
    """Several teachers whose predictions are averaged.

    The target at temperature T is, with weights `w_m` that sum to one,

        arithmetic:  p = sum_m w_m softmax(z_m / T)
        geometric:   p = softmax(sum_m w_m z_m / T)

    both in log space. A layer of one member is tapped by its place in front of the
    path, `"0/stack2"`, and so are its own logits, `"0/logits"`.

    Args:
        models: two or more built models over the same inputs and classes.
        average: `"arithmetic"` (default) or `"geometric"`.
        weights: one positive number a model. Default: equal.
        portions: in how many parts each takes a batch, as in `kd.Teacher`. Default 1.

    Raises:
        TypeError: a member is not a `keras.Model`.
        ValueError: fewer than two models, one of them twice or not built, an unknown
            average, weights that do not fit, portions fewer than one.

    Example:
        >>> teacher = kd.EnsembleTeacher([a, b], average="geometric")

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        average: str = "arithmetic",
        *,
        weights: Sequence[float] | None = None,
        portions: int = 1,
    ):
        self.weights = member_weights(models, average, weights)
        self.members = tuple(models)
        self._norms = {}
        self.average = average
        self.portions = count_of(portions)

    @property
    def models(self) -> tuple[keras.Model, ...]:
        """Give the members."""
        return self.members

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Run each member that is asked; a logits tap gives a list, one a member."""
        taps = tuple(taps)
        if not taps:
            return {}
        if any(tap.is_gradient for tap in taps):
            raise ValueError(
                "An ensemble has no gradient by the input; got the taps "
                f"{[str(tap) for tap in taps]}. Take one of its members as the teacher."
            )
        outputs = [tap for tap in taps if is_shared(tap)]
        owners = {tap: self.owner(tap) for tap in taps if tap not in outputs}
        knowledge = {tap: [] for tap in outputs}
        for place, model in enumerate(self.members):
            layers = {
                tap: own for tap, (owner, own) in owners.items() if owner == place
            }
            wanted = [*outputs, *layers.values()]
            if not wanted:
                continue
            ask = functools.partial(tapping.up_to, model, taps=wanted)
            tapped = in_portions(ask, inputs, self.portions)
            tapped = keras.tree.map_structure(ops.stop_gradient, tapped)
            for tap in outputs:
                knowledge[tap].append(tapped[tap])
            knowledge.update({tap: tapped[own] for tap, own in layers.items()})
        return knowledge

    def find_norm(self, inputs, tap: Tap) -> None:
        """Find the batch normalisation behind a tap of a member."""
        owner, own = self.owner(tap)
        self._norms[tap] = tapping.norms_of(self.members[owner], inputs, own)

    def head_classes(self, inputs, tap: Tap) -> int:
        """Refuse: the average of the members' predictions needs their logits."""
        raise ValueError(
            f"An ensemble has no one last layer, whose input '{tap}' would be: its "
            "members' predictions are averaged. Compare logits by kd.losses.SoftTarget, "
            "or take one of its members as the teacher."
        )

    def owner(self, tap: Tap) -> tuple[int, Tap]:
        """Give the place of the member that a tap is in, and the member's own tap.

        Raises:
            ValueError: the tap names no member.
        """
        place, _, path = tap.path.partition("/")
        if not path or not place.isdecimal() or int(place) >= len(self.members):
            raise ValueError(
                f"An ensemble's layer is tapped as '<member>/<path>', member 0 to "
                f"{len(self.members) - 1}, as in '0/{tap.path}'; got '{tap.path}'."
            )
        return int(place), Tap(path, tap.call, tap.side)

    def logits(self, knowledge, temperature=1.0):
        """Give the logits whose softmax at `temperature` is the averaged prediction.

        Those of one member are given as they are.
        """
        if not isinstance(knowledge, list):
            return knowledge
        return averaged(knowledge, self.weights, self.average, temperature)


def as_teacher(teacher: keras.Model | Teacher) -> Teacher:
    """Wrap a model, an ensemble as the teacher of its members; leave a teacher as is."""
    if isinstance(teacher, Ensemble):
        return EnsembleTeacher(teacher.members, teacher.average, weights=teacher.shares)
    return teacher if isinstance(teacher, Teacher) else Teacher(teacher)


def is_shared(tap: Tap) -> bool:
    """Tell whether a tap is of every member: the output that is averaged."""
    return tap.path.split("/")[0] == LOGITS


def member_weights(
    models: Sequence, average: str, weights: Sequence | None, least: int = 2
) -> list:
    """Check what an ensemble is made of; give its weights, which sum to one."""
    if len(models) < least or len({id(model) for model in models}) < len(models):
        raise ValueError(
            "An ensemble needs two or more different models; got "
            f"{[getattr(model, 'name', model) for model in models]}. "
            "Give a single teacher to the Distiller itself."
        )
    if average not in ("arithmetic", "geometric"):
        raise ValueError(f"average is 'arithmetic' or 'geometric'; got {average!r}.")
    weights = [1.0] * len(models) if weights is None else list(weights)
    if len(weights) != len(models) or min(weights) <= 0:
        raise ValueError(
            f"An ensemble of {len(models)} models needs as many positive weights; "
            f"got {weights}."
        )
    for model in models:
        check(model)
    return [weight / sum(weights) for weight in weights]


def averaged(logits: Sequence, weights: Sequence, average: str, temperature=1.0):
    """Give the logits whose softmax at `temperature` is the averaged prediction.

    Args:
        logits: `(..., K)` of each member.
        weights: of the members; they sum to one.
        average: `"arithmetic"` or `"geometric"`.
        temperature: of the softmax.
    """
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
