"""Teachers: called with a batch, they give named knowledge.

A teacher runs in inference form, its knowledge carries no gradient, and it is never
trained, counted or saved with the student. Teachers are plain objects, so that Keras
does not find the models inside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
from keras import ops

from keras_distill import heads
from keras_distill import taps as tapping
from keras_distill.taps import Tap


class Teacher:
    """One trained model that teaches.

    `Distiller` wraps a `keras.Model` in it; make one yourself to subclass it.

    Args:
        model: a built `keras.Model` that ends in logits.

    Raises:
        TypeError: `model` is not a `keras.Model`.
        ValueError: `model` is not built, so it can't have been trained.

    Example:
        >>> knowledge = kd.Teacher(model)(images, kd.taps.as_taps(["logits", "stack2"]))
    """

    def __init__(self, model: keras.Model):
        _check(model)
        self.model = model
        self._norms = {}

    @property
    def models(self) -> tuple[keras.Model, ...]:
        """Give every model that runs when the teacher is called."""
        return (self.model,)

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Run once, as far as the deepest tap; give the tensors, gradients stopped.

        Args:
            inputs: what the teacher's model takes.
            taps: what to know.
            scores: what tapped gradients are of, as in `kd.taps.forward`.

        Returns:
            A dict from each tap to its tensor; for a logits tap, what `logits`
            turns into logits at a temperature.
        """
        if not taps:
            return {}
        knowledge = tapping.up_to(self.model, inputs, taps, scores=scores)
        return keras.tree.map_structure(ops.stop_gradient, knowledge)

    def can_teach(self, terms: Sequence) -> None:
        """Check, before anything runs, that the teacher has what terms ask for.

        Args:
            terms: of a distiller.

        Raises:
            ValueError: it has not.
        """

    def find_norm(self, inputs, tap: Tap) -> None:
        """Find the batch normalisation behind a tap, for `norm`.

        Args:
            inputs: specs of what the teacher takes.
            tap: of what the normalisation gives, or a sum of several.

        Raises:
            ValueError: something else makes it.
        """
        self._norms[tap] = tapping.norms_of(self.model, inputs, tap)

    def norm(self, tap: Tap) -> tuple:
        """Give deviation and mean, `(C,)`, of what the normalisation at a tap gives.

        Of a sum they are those of independent parts.
        """
        scales, offsets = zip(*map(_scale_and_offset, self._norms[tap]), strict=True)
        if len(scales) > 1:
            return ops.sqrt(sum(ops.square(scale) for scale in scales)), sum(offsets)
        return scales[0], offsets[0]

    def head_classes(self, inputs, tap: Tap) -> int:
        """Give V of the last layer, whose input is tapped, for `head`.

        Args:
            inputs: specs of what the teacher takes.
            tap: of the input of the layer that makes the logits.

        Raises:
            ValueError: the tap is of something else.
        """
        return heads.classes_of(self.model, inputs, tap)

    def head(self, tap: Tap) -> tuple:
        """Give kernel, bias and whether the kernel is transposed, of a last layer.

        Args:
            tap: of its input.
        """
        kernel, bias, transposed = heads.head_of(self.model, tap)
        bias = None if bias is None else ops.stop_gradient(bias)
        return ops.stop_gradient(kernel), bias, transposed

    def logits(self, knowledge, temperature=1.0):
        """Give the logits whose softmax at `temperature` is the teacher's prediction.

        Args:
            knowledge: what the call gave for a logits tap.
            temperature: of the softmax that the loss takes.

        Returns:
            Logits, `(..., K)`.
        """
        del temperature
        return knowledge


class EnsembleTeacher(Teacher):
    """Several teachers whose predictions are averaged.

    The target at temperature T is, with weights `w_m` that sum to one,

        arithmetic:  p = sum_m w_m softmax(z_m / T)
        geometric:   p = softmax(sum_m w_m z_m / T)

    both in log space. A layer of one member is tapped by its place in front of the
    path: `"0/stack2"`.

    Args:
        models: two or more built models over the same inputs and classes.
        average: `"arithmetic"` (default) or `"geometric"`.
        weights: one positive number a model. Default: equal.

    Raises:
        TypeError: a member is not a `keras.Model`.
        ValueError: fewer than two models, one of them twice or not built, an unknown
            average, or weights that do not fit.

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
    ):
        if len(models) < 2 or len({id(model) for model in models}) < len(models):
            raise ValueError(
                "An ensemble needs two or more different models; got "
                f"{[getattr(model, 'name', model) for model in models]}. "
                "Give a single teacher to the Distiller itself."
            )
        if average not in ("arithmetic", "geometric"):
            raise ValueError(
                f"average is 'arithmetic' or 'geometric'; got {average!r}."
            )
        weights = [1.0] * len(models) if weights is None else list(weights)
        if len(weights) != len(models) or min(weights) <= 0:
            raise ValueError(
                f"An ensemble of {len(models)} models needs as many positive weights; "
                f"got {weights}."
            )
        for model in models:
            _check(model)
        self.members = tuple(models)
        self._norms = {}
        self.average = average
        self.weights = [weight / sum(weights) for weight in weights]

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
        outputs = [tap for tap in taps if tap.is_logits]
        owners = {tap: self.owner(tap) for tap in taps if not tap.is_logits}
        knowledge = {tap: [] for tap in outputs}
        for place, model in enumerate(self.members):
            layers = {
                tap: own for tap, (owner, own) in owners.items() if owner == place
            }
            wanted = [*outputs, *layers.values()]
            if not wanted:
                continue
            tapped = tapping.up_to(model, inputs, wanted)
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
        """Give the logits whose softmax at `temperature` is the averaged prediction."""
        members = [ops.cast(logits, "float32") for logits in knowledge]
        if len({logits.shape[-1] for logits in members}) > 1:
            raise ValueError(
                "The members of an ensemble must have the same classes; their logits "
                f"have {[logits.shape[-1] for logits in members]}."
            )
        if self.average == "geometric":
            return sum(w * z for w, z in zip(self.weights, members, strict=True))
        log_probabilities = [
            ops.log(w) + ops.log_softmax(z / temperature, axis=-1)
            for w, z in zip(self.weights, members, strict=True)
        ]
        return temperature * ops.logsumexp(ops.stack(log_probabilities), axis=0)


def as_teacher(teacher: keras.Model | Teacher) -> Teacher:
    """Wrap a model; leave a teacher as it is."""
    return teacher if isinstance(teacher, Teacher) else Teacher(teacher)


def _check(model) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            "A teacher is a keras.Model or a kd.EnsembleTeacher; got "
            f"{type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"The teacher '{model.name}' is not built, so it can't have been trained. "
            "Train it first, or load its weights after a call on one batch."
        )


def _scale_and_offset(norm):
    # A frozen one has both, and no mean.
    size = getattr(norm, "moving_mean", norm.gamma).shape
    scale = ops.ones(size) if norm.gamma is None else ops.abs(norm.gamma)
    offset = ops.zeros(size) if norm.beta is None else norm.beta
    return ops.convert_to_tensor(scale), ops.convert_to_tensor(offset)
