"""The training data of a scheme."""

import contextlib

import keras

from keras_distill.distillers.distiller import Distiller
from keras_distill.training import first_batch
from keras_distill.training.plain_fit import fit_from_backup


class StageData:
    """Training data of all stages, and the arguments of `fit`.

    `inputs` and `labels` are the first batch, or None if none can be read.
    """

    def __init__(self, distiller: Distiller, x, y, validation_data, arguments: dict):
        first_batch.check_rereadable(x)
        self.x, batch = first_batch.data_and_batch(x, y)
        self.y, self.arguments = y, {**arguments, "validation_data": validation_data}
        self.callbacks = list(self.arguments.pop("callbacks", None) or [])
        self.inputs, self.labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
        self.compiled = {"optimizer": distiller.optimizer}
        self.compiled |= distiller.compile_arguments()
        self.strategy = getattr(distiller, "distribute_strategy", None)

    def scope(self):
        """Return the strategy scope in which to create optimizers."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def fit(self, trainer, epochs: int, callbacks, labeled: bool):
        """Call `fit` and return the `keras.callbacks.History`."""
        # Without a loss there is nothing to validate.
        used = (x for x in self.arguments if labeled or not x.startswith("validation"))
        return fit_from_backup(
            trainer,
            self.x,
            self.y,
            epochs=epochs,
            # In front of what records the logs, to which they may add.
            callbacks=[*self.callbacks, *callbacks],
            verbose=0,
            **{name: self.arguments[name] for name in used},
        )
