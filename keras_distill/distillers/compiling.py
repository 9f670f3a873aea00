"""What `compile` was given, for models that hand it on in another form."""

from __future__ import annotations

import keras


class KeptCompile:
    """Save and restore what `compile` took, as Keras does where it is not overridden."""

    def keep_compile(self, **given) -> None:
        """Note what `compile` took, beside the optimiser."""
        # In a function, so that Keras does not take metrics in it for the model's own.
        self._given = lambda: given

    def get_compile_config(self) -> dict:
        """Give what `compile` took."""
        if not self.compiled:
            return {}
        given = {"optimizer": self.optimizer, **self._given()}
        serialize = keras.saving.serialize_keras_object
        return {name: serialize(value) for name, value in given.items()}

    def compile_from_config(self, config: dict) -> None:
        """Compile as it was."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)
