"""The base class of teachers, and what terms request from one."""

import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import keras
from keras import ops

from keras_distill import taps as tapping
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps import Tap, heads
from keras_distill.taps.outlines import tap_shapes
from keras_distill.taps.values import without_gradient
from keras_distill.teachers.portions import check_portions, in_portions

# What outputs are: logits of one softmax, a logit of a sigmoid each, or numbers.
CLASSES, LABELS, VALUES = "classes", "labels", "values"
INPUT_GRADIENT, NORM, HEAD = "input_gradient", "teacher_norm", "teacher_head"


class Request(NamedTuple):
    """What one term of a distiller needs from its teacher.

    Args:
        term: name of the term.
        taps: of the teacher.
        needs: in addition to tensors: `"input_gradient"`, `"teacher_norm"`, `"teacher_head"`.
        temperature: at which it compares predictions; None if it does not, `"scheduled"`
            if a schedule sets it.
        predicts: what its loss takes outputs for, as in `DistillationLoss`.
        is_settled: whether its loss stays, False for that of a default term which the
            task has not shown yet.
    """

    term: str
    taps: tuple[Tap, ...]
    needs: frozenset[str] = frozenset()
    temperature: float | str | None = None
    predicts: str | None = None
    is_settled: bool = True


class BaseTeacher:
    """Base class of teachers, which return the knowledge of a batch.

    A subclass has `__call__`, calls `super().__init__` with the models that run in it,
    and declares in `lacks` what it does not provide. Teachers are plain objects, so that
    Keras does not track the models inside them; knowledge carries no gradient.

    Class attributes that a subclass sets:

    - `lacks`: for each of `"input_gradient"`, `"teacher_norm"` and `"teacher_head"` that
      the teacher does not provide, why, and what to do instead. A distiller raises it
      before the first step. Default: all three.
    - `adapts_to_data`: whether `adapt` is called with the first samples before a
      training. Default False.
    - `supports_jit`: whether XLA can compile a step with the teacher in it. Default True.
    - `is_apart`: whether its models are not those that are trained. Default True.
    - `checks_first_batch`: whether a distiller runs it on the first batch, before it trains,
      to check its values. Default True.
    - `copies`: the layer of weights that follow the student, saved with the distiller.
      Default: None.

    Args:
        models: the models that run when the teacher is called.
        portions: number of parts in which they take a batch. Default 1.

    Example:
        >>> class Undecided(kd.BaseTeacher):
        ...     def __call__(self, inputs, taps, scores=None):
        ...         return {tap: ops.zeros((ops.shape(inputs)[0], 10)) for tap in taps}
    """

    lacks: ClassVar[Mapping[str, str]] = {
        INPUT_GRADIENT: "This teacher has no gradient with respect to the input. Use a "
        "kd.Teacher, or a term that does not tap one.",
        NORM: "This teacher has no batch normalization. Use a kd.Teacher, or another "
        "loss.",
        HEAD: "This teacher has no last layer. Compare logits by kd.losses.SoftTarget, or "
        "use a kd.Teacher.",
    }
    checks_first_batch: ClassVar[bool] = True
    copies: keras.Layer | None = None
    is_apart: bool = True
    adapts_to_data: bool = False
    supports_jit: bool = True

    def __init__(self, models: Sequence[keras.Model] = (), *, portions: int = 1):
        self.models = tuple(models)
        if self.is_apart:
            check_stateless(self.models)
        self.portions = check_portions(portions)
        self._norms = {}
        if self.portions > 1:
            several = (
                f"A teacher that takes the batch in {portions} portions has no gradient "
                "with respect to the input. Leave portions out."
            )
            self.lacks = {INPUT_GRADIENT: several, **self.lacks}

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Return the knowledge of a batch, without gradient.

        Args:
            inputs: what the teacher takes.
            taps: of the tensors to return.
            scores: what tapped gradients are of, as in `kd.taps.forward`.

        Returns:
            A dict from each tap to its tensor; for an output, to what `logits` turns
            into logits at a temperature.
        """
        raise NotImplementedError

    def logits(self, knowledge, temperature=1.0, predicts=CLASSES):
        """Return the logits whose prediction at `temperature` is the teacher's.

        Args:
            knowledge: what the call returned for the tap of an output.
            temperature: of the softmax or sigmoid in the loss.
            predicts: what the output is: `"classes"`, the logits of one softmax;
                `"labels"`, a logit of a sigmoid each; or `"values"`, numbers.

        Returns:
            Logits or values, `(..., K)`.
        """
        del temperature, predicts
        return knowledge

    def shapes(self, inputs, taps: Sequence[Tap]) -> dict[str, list]:
        """Return the shape of each tap, batch first, by the tap's text.

        Args:
            inputs: specs of what the teacher takes.
            taps: of the teacher.
        """

        def run(inputs, taps):
            known = self(inputs, taps)
            check_knowledge(self, known, taps)
            # By element, which fits any number of outputs.
            outputs = {
                t: self.logits(known[t], 1.0, LABELS) for t in taps if t.is_output
            }
            return [outputs.get(t, known[t]) for t in taps]

        return tap_shapes(run, inputs, taps) if taps else {}

    def check(self, requests: Sequence[Request]) -> None:
        """Check, before anything runs, that the teacher has what terms need.

        Raises:
            ValueError: it has not.
        """
        for request in requests:
            self._check_gradients(request.taps)
            for need in sorted(request.needs & set(self.lacks)):
                raise ValueError(f"Term '{request.term}': {self.lacks[need]}")

    def adapt(self, inputs) -> None:
        """Look at the first samples that the teacher takes, before the first step.

        Raises:
            ValueError: the teacher can't take them.
        """

    def student_selection(self, selection, sample_ids=None):
        """Return what the student takes of a batch, from its `student_inputs`."""
        del sample_ids
        return selection

    def follow(self, step) -> None:
        """Update the copies, at each step before the call."""

    @property
    def replicated(self) -> keras.Layer | None:
        """The layer whose variables must be the same on all replicas."""
        return self.copies

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return the callbacks that `fit` adds before the user's."""
        return []

    def locate(self, tap: Tap) -> tuple[keras.Model, Tap]:
        """Return the model that a tap is in, and the tap of that model."""
        (model,) = self.models
        return model, tap

    def find_norm(self, inputs, tap: Tap) -> None:
        """Find the batch normalizations whose output is tapped, or whose outputs' sum is.

        Raises:
            ValueError: another layer computes what is tapped.
        """
        model, inner = self.locate(tap)
        self._norms[tap] = tapping.norms_of(model, inputs, inner)

    def norm(self, tap: Tap) -> tuple:
        """Return standard deviation and mean, `(C,)`, of a normalization's output.

        Those of a sum are of independent parts.
        """
        scales, offsets = zip(*map(_scale_and_offset, self._norms[tap]), strict=True)
        if len(scales) > 1:
            return ops.sqrt(sum(ops.square(scale) for scale in scales)), sum(offsets)
        return scales[0], offsets[0]

    def head_classes(self, inputs, tap: Tap) -> int:
        """Return the number of classes V of the last layer, whose input is tapped.

        Raises:
            ValueError: the tap is of something else.
        """
        model, inner = self.locate(tap)
        return heads.head_classes(model, inputs, inner)

    def head(self, tap: Tap) -> heads.Head:
        """Return the last layer, whose input is tapped, without gradient."""
        parts = heads.head_of(*self.locate(tap))
        return heads.Head(
            *(ops.stop_gradient(x) if ops.is_tensor(x) else x for x in parts)
        )

    def _run(self, model, inputs, taps: Sequence[Tap], scores=None) -> dict:
        """Run a model as far as the deepest tap; return the tensors without gradient."""
        if not taps:
            return {}
        run = functools.partial(tapping.up_to, model, taps=taps, scores=scores)
        tensors = in_portions(run, inputs, self.portions)
        return keras.tree.map_structure(without_gradient, tensors)

    def _check_gradients(self, taps: Iterable[Tap]) -> None:
        gradients = [str(tap) for tap in taps if tap.is_gradient]
        if gradients and INPUT_GRADIENT in self.lacks:
            raise ValueError(f"{self.lacks[INPUT_GRADIENT]} Got the taps {gradients}.")


def check_knowledge(teacher: BaseTeacher, knowledge, taps: Iterable[Tap]) -> None:
    """Check that a teacher's call returned the tensor of each tap, by the tap."""
    if isinstance(knowledge, Mapping) and set(taps) <= set(knowledge):
        return
    found = type(knowledge).__name__
    if isinstance(knowledge, Mapping):
        found = f"the keys {list(knowledge)}"
    raise TypeError(
        f"The call of {type(teacher).__name__} must return a dict from each of the taps "
        f"that it gets to a tensor, such as {{tap: logits for tap in taps}}; got {found}, "
        f"for the taps {[str(tap) for tap in taps]}."
    )


def check_call(teacher: BaseTeacher) -> None:
    """Check that a teacher can be called as `teacher(inputs, taps, scores)`."""
    try:
        inspect.signature(teacher).bind(None, (), None)
    except TypeError as error:
        raise TypeError(
            f"The call of {type(teacher).__name__} takes "
            f"{inspect.signature(teacher)}; a distiller calls it with inputs, taps and "
            "scores: def __call__(self, inputs, taps, scores=None)."
        ) from error


def check_trained(model) -> None:
    """Check that a teacher is a built model."""
    if not isinstance(model, keras.Model):
        is_function = callable(model) and not isinstance(model, (keras.Layer, type))
        fix = " Pass a function as kd.FunctionTeacher(function)." if is_function else ""
        raise TypeError(
            "A teacher is a keras.Model, a kd.Teacher or a kd.EnsembleTeacher; got "
            f"{type(model).__name__}.{fix}"
        )
    if not model.built:
        raise ValueError(
            f"The teacher '{model.name}' is not built, so it can't have been trained. "
            "Train it first, or load its weights after a call on one batch."
        )


def check_stateless(models: Iterable[keras.Model]) -> None:
    """Check that teachers return the same for the same batch, whatever came before."""
    for model in models:
        layers = flatten_layers(model) if isinstance(model, keras.Layer) else []
        stateful = [x.name for x in layers if getattr(x, "stateful", False) is True]
        if stateful:
            raise ValueError(
                f"The teacher '{model.name}' is stateful (layers {stateful}): its "
                "knowledge of a batch would depend on the batches before. Build it with "
                "stateful=False, and copy its weights: new.set_weights(old.get_weights())."
            )


def check_keeps_state(teacher: BaseTeacher, scope: keras.StatelessScope) -> None:
    """Check that a run in a scope assigned to no variable of a teacher but seeds.

    Raises:
        ValueError: it did, as layers with a state of their own do.
    """
    for model in teacher.models if teacher.is_apart else ():
        changed = [
            v.path
            for v in model.non_trainable_variables
            if scope.get_current_value(v) is not None
            and v.name != "seed_generator_state"
        ]
        if changed:
            raise ValueError(
                f"The teacher '{model.name}' assigns to its variables {changed} as it "
                "runs, and its knowledge of a batch must not depend on the batches "
                "before. Let its layers assign in training form alone (if training: in "
                "their call), or pass a teacher without this state."
            )


def check_known(requests: Sequence[Request], taps: Iterable[Tap], what: str) -> None:
    """Check that terms tap what a teacher without layers has."""
    known = list(taps)
    for request in requests:
        missing = [str(tap) for tap in request.taps if tap not in known]
        if missing:
            raise ValueError(
                f"{what} {[str(tap) for tap in known]}, but term '{request.term}' taps "
                f"{missing} of the teacher. Tap one of these, or provide it."
            )


def _scale_and_offset(norm):
    # A frozen one has both, and no mean.
    size = getattr(norm, "moving_mean", norm.gamma).shape
    scale = ops.ones(size) if norm.gamma is None else ops.abs(norm.gamma)
    offset = ops.zeros(size) if norm.beta is None else norm.beta
    return ops.convert_to_tensor(scale), ops.convert_to_tensor(offset)
