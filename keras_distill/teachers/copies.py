"""Copies of models whose weights follow the models' own while those train."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill.teachers.teacher import Teacher


class Copies(keras.Layer):
    """Copies, in a layer, so that they are saved and restored with what holds them.

    Args:
        sources: the built models.
    """

    def __init__(self, sources: Sequence[keras.Model], name: str = "copies"):
        super().__init__(name=name, trainable=False, autocast=False)
        for source in sources:
            if not source.built:
                raise ValueError(
                    f"'{source.name}' is not built, so it can't be copied. Call it on "
                    "one batch first."
                )
        # In a function, so that Keras does not find the sources here.
        self.pairs = lambda: zip(self.models, sources, strict=True)
        self.models = [_copy(source) for source in sources]
        for model in self.models:
            model.trainable = False
        # Its own, as each optimiser begins at 0.
        self.steps = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int",
            trainable=False,
            name="steps",
            aggregation="only_first_replica",
        )
        self.built = True

    def renew(self, when) -> None:
        """Take the sources' weights where a truth value says so."""
        for own, source in self._variables():
            own.assign(ops.where(when, source.value, own.value))

    def average(self, most: float) -> None:
        """Move to the sources' weights by a step of `1 - d` of the way.

        Args:
            most: d, after the first steps, in which it is less.
        """
        step = ops.cast(self.steps, "float32")
        decay = ops.minimum(most, (1.0 + step) / (10.0 + step))
        self.steps.assign_add(1)
        for own, source in self._variables():
            if keras.backend.is_float_dtype(own.dtype):
                kept = ops.cast(decay, own.dtype)
                own.assign(kept * own.value + (1 - kept) * source.value)
            else:
                own.assign(source.value)

    def _variables(self):
        for model, source in self.pairs():
            yield from zip(model.variables, source.variables, strict=True)


class MeanTeacher(Teacher):
    """A teacher whose weights are a running mean of the student's.

    At each step, before it is asked,

        w_t <- d * w_t + (1 - d) * w_s,   d = min(decay, (1 + step) / (10 + step))

    so that the mean soon forgets the first weights. It is a copy of the student, saved
    in the distiller's backups, and runs in inference form.

    Args:
        student: the built model that the distiller trains.
        decay: d, at least 0 and below 1. Default 0.999.

    Raises:
        TypeError: the student is not a `keras.Model`.
        ValueError: it is not built, or the decay is out of range.

    Example:
        >>> distiller = kd.Distiller(student, kd.MeanTeacher(student))

    Source:
        Tarvainen, Valpola 2017, Mean teachers are better role models.
    """

    def __init__(self, student: keras.Model, decay: float = 0.999):
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay is at least 0 and below 1; got {decay}.")
        self.decay = decay
        self.copies = Copies([student], "mean_teacher")
        super().__init__(self.copies.models[0])

    @property
    def followers(self) -> keras.Layer:
        """Give the layer that holds the copy."""
        return self.copies

    def follow(self, step) -> None:
        """Move the copy on."""
        del step
        self.copies.average(self.decay)


def _copy(source):
    copy = keras.models.clone_model(source)
    if not copy.built:
        copy.build_from_config(source.get_build_config())
    copy.set_weights(source.get_weights())
    return copy
