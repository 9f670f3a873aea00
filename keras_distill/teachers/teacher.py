"""Teachers: called with a batch, they give named knowledge.

A teacher runs in inference form, its knowledge carries no gradient, and it is never
trained, counted or saved with the student. Teachers are plain objects, so that Keras
does not find the models inside them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import keras
from keras import ops

from keras_distill import taps as tapping
from keras_distill.taps import Tap, heads
from keras_distill.teachers.portions import count_of, in_portions


class Teacher:
    """One trained model that teaches.

    `Distiller` wraps a `keras.Model` in it; make one yourself to subclass it, or to let
    the teacher take a batch in portions. On a CPU a portion's feature maps stay in the
    caches, which can save a fifth of a conv net's time (`benchmarks/frozen_teacher.py`);
    a GPU is faster with the whole batch.

    Args:
        model: a built `keras.Model` that ends in logits.
        portions: in how many parts it takes a batch, of dense inputs. A sample's outputs
            must not depend on the others', and tapped tensors are batch first. Default 1.

    Raises:
        TypeError: `model` is not a `keras.Model`.
        ValueError: `model` is not built, so it can't have been trained; portions are
            fewer than one.

    Example:
        >>> knowledge = kd.Teacher(model)(images, kd.taps.as_taps(["logits", "stack2"]))
        >>> on_a_cpu = kd.Teacher(kd.freeze(model, images[:64]), portions=4)
    """

    portions = 1

    def __init__(self, model: keras.Model, *, portions: int = 1):
        check(model)
        self.model = model
        self.portions = count_of(portions)
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
        taps = tuple(taps)
        if not taps:
            return {}
        self._has_gradients(taps)
        ask = functools.partial(tapping.up_to, self.model, taps=taps, scores=scores)
        knowledge = in_portions(ask, inputs, self.portions)
        return keras.tree.map_structure(ops.stop_gradient, knowledge)

    @property
    def followers(self) -> keras.Layer | None:
        """Give the layer that holds what moves with the student, if anything does."""
        return None

    @property
    def replicated(self) -> keras.Layer | None:
        """Give of it the layer that is to be the same on all replicas."""
        return self.followers

    def follow(self, step) -> None:
        """Move on with the student, at each step and before the call."""

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Give callbacks that `fit` is to take beside the user's."""
        return []

    def can_teach(self, terms: Sequence) -> None:
        """Check, before anything runs, that the teacher has what terms ask for.

        Args:
            terms: of a distiller.

        Raises:
            ValueError: it has not.
        """
        self._has_gradients(tap for term in terms for tap in term.teacher)

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

    def _has_gradients(self, taps: Iterable[Tap]) -> None:
        slopes = [str(tap) for tap in taps if tap.is_gradient]
        if slopes and self.portions > 1:
            raise ValueError(
                f"A teacher that takes the batch in {self.portions} portions has no "
                f"gradient by the input; got the taps {slopes}. Leave portions out."
            )


def check(model) -> None:
    """Refuse what is no model, or one without weights yet."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "A teacher is a keras.Model, a kd.Teacher or a kd.EnsembleTeacher; got "
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
