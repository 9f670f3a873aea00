"""Copies of models that follow the models' weights during training."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill._backend.keras_layers import Untracked
from keras_distill.data.preprocessing import carry_preprocessing


class Copies(keras.Layer):
    """Copies of built models, in a layer that is saved and restored with its owner."""

    def __init__(self, sources: Sequence[keras.Model], name: str = "copies"):
        super().__init__(name=name, trainable=False, autocast=False)
        for source in sources:
            if not source.built:
                raise ValueError(
                    f"'{source.name}' is not built, so it can't be copied. Call it on "
                    "one batch first."
                )
        self.sources = Untracked(list(sources))
        self.models = [_copy(source) for source in sources]
        # Counted here, as each optimizer starts at 0.
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
        """Assign the sources' weights where a boolean says so."""
        for variable, source in self._variables():
            variable.assign(ops.where(when, source.value, variable.value))

    def average(self, decay: float) -> None:
        """Move towards the sources' weights by `1 - decay`, further in the first steps."""
        step = ops.cast(self.steps, "float32")
        decay = ops.minimum(decay, (1.0 + step) / (10.0 + step))
        self.steps.assign_add(1)
        for variable, source in self._variables():
            if keras.backend.is_float_dtype(variable.dtype):
                kept = ops.cast(decay, variable.dtype)
                variable.assign(kept * variable.value + (1 - kept) * source.value)
            else:
                variable.assign(source.value)

    def _variables(self):
        for model, source in zip(self.models, self.sources.value, strict=True):
            yield from zip(model.variables, source.variables, strict=True)


def _copy(source):
    copy = carry_preprocessing(source, keras.models.clone_model(source))
    if not copy.built:
        copy.build_from_config(source.get_build_config())
    copy.set_weights(source.get_weights())
    copy.trainable = False
    return copy
