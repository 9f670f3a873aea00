"""What the trainings of a scheme are fitted on."""

from __future__ import annotations

import contextlib

import keras

from keras_distill.distillers import term_checks as checks
from keras_distill.distillers.distiller import Distiller


class Data:
    """What all stages are fitted on, and how.

    Args:
        distiller: the scheme's, compiled.
        x, y: as in `fit`.
        validation_data: for stages with labels.
        arguments: of `fit`, the others.
    """

    def __init__(self, distiller: Distiller, x, y, validation_data, arguments: dict):
        checks.can_be_read_again(x)
        self.x, batch = checks.first_batch(x, y)
        self.y, self.validation_data = y, validation_data
        self.callbacks = list(arguments.pop("callbacks", None) or [])
        self.arguments = arguments
        self.was_looked_at, parts = batch is not None, (None, None, None)
        if self.was_looked_at:
            parts = keras.utils.unpack_x_y_sample_weight(batch)
        self.inputs, self.labels = parts[:2]
        # Nothing public gives the loss and the metrics themselves.
        self.compiled = dict(distiller._compile_config.config)
        self.strategy = getattr(distiller, "distribute_strategy", None)

    def scope(self):
        """Give the scope in which optimisers are made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def fit(self, trainer, epochs: int, callbacks, labelled: bool):
        """Call `fit`; give the history."""
        given = {**self.arguments, "validation_data": self.validation_data}
        if not labelled:
            # Without a loss there is nothing to validate.
            given = {
                name: value
                for name, value in given.items()
                if not name.startswith("validation")
            }
        return trainer.fit(
            self.x,
            self.y,
            epochs=epochs,
            callbacks=[*callbacks, *self.callbacks],
            verbose=0,
            **given,
        )
