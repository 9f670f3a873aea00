"""What `compile` was called with, kept and copied."""

import inspect

import keras

from keras_distill._backend.keras_layers import Untracked
from keras_distill._backend.optimizer_variables import copied_optimizer


class KeptCompile:
    """Keep the arguments of `compile`, and save and restore them.

    Keras does so itself where `compile` is not overridden. A mixin in front of
    `keras.Model`.
    """

    kept_compile = Untracked({})

    def compile_arguments(self) -> dict:
        """Return what `compile` was called with, except the optimizer."""
        return self.kept_compile.value

    def keep_compile(self, **arguments) -> None:
        """Note what `compile` was called with, except the optimizer."""
        # A metric among them would be counted as the model's own.
        self.kept_compile = Untracked(arguments)

    def get_compile_config(self) -> dict:
        """Return what `compile` was called with."""
        if not self.compiled:
            return {}
        arguments = {"optimizer": self.optimizer, **self.compile_arguments()}
        serialize = keras.saving.serialize_keras_object
        return {name: serialize(value) for name, value in arguments.items()}

    def compile_from_config(self, config: dict) -> None:
        """Compile as before."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)


def default_metrics(model: keras.Model, loss, given: dict) -> dict:
    """Return metrics where `"auto"` was given: those of the model's own `compile`.

    A task of keras_hub has default metrics, with which it is created; other models have
    none, nor has a training without a loss for labels.

    Args:
        model: the student.
        loss: of the labels, or None.
        given: `metrics` and `weighted_metrics`.
    """
    found = {kind: value for kind, value in given.items() if value != "auto"}
    if len(found) == len(given):
        return found
    own = inspect.signature(model.compile).parameters
    kept = (model.get_compile_config() or {}) if model.compiled else {}
    for kind in set(given) - set(found):
        is_own = kind in own and own[kind].default == "auto" and loss is not None
        value = kept.get(kind) if is_own else None
        found[kind] = value and keras.saving.deserialize_keras_object(value)
    return found


def copied(objects):
    """Copy layers, metrics and optimizers from their arguments, without their state.

    Args:
        objects: one, or a structure of them, in which there may be names and None.
    """
    return keras.tree.map_structure(_copy, objects)


def _copy(value):
    if isinstance(value, keras.Optimizer):
        return copied_optimizer(value)
    if not isinstance(value, (keras.Layer, keras.Metric)):
        return value
    return type(value).from_config(value.get_config())
