"""The training data of a scheme."""

import contextlib

import keras

from keras_distill.distillers.distiller import Distiller
from keras_distill.training import data_checks


class StageData:
    """Training data of all stages, and the arguments of `fit`.

    Args:
        distiller: distiller of the scheme, compiled.
        x, y: as in `fit`.
        validation_data: as in `fit`, for stages that use labels.
        arguments: further arguments of `fit`.
    """

    def __init__(self, distiller: Distiller, x, y, validation_data, arguments: dict):
        data_checks.check_rereadable(x)
        self.x, batch = data_checks.first_batch(x, y)
        self.y, self.validation_data = y, validation_data
        self.callbacks = list(arguments.pop("callbacks", None) or [])
        self.arguments = arguments
        self.has_batch, self.inputs, self.labels = batch is not None, None, None
        if self.has_batch:
            self.inputs, self.labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
        self.compiled = {"optimizer": distiller.optimizer}
        self.compiled |= distiller.compile_arguments()
        self.strategy = getattr(distiller, "distribute_strategy", None)

    def scope(self):
        """Return the strategy scope in which to create optimizers."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def fit(self, trainer, epochs: int, callbacks, labeled: bool):
        """Call `fit` and return the `keras.callbacks.History`."""
        arguments = {**self.arguments, "validation_data": self.validation_data}
        if not labeled:
            # Without a loss there is nothing to validate.
            arguments = {
                name: value
                for name, value in arguments.items()
                if not name.startswith("validation")
            }
        return trainer.fit(
            self.x,
            self.y,
            epochs=epochs,
            callbacks=[*callbacks, *self.callbacks],
            verbose=0,
            **arguments,
        )
