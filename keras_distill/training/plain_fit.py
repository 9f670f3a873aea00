"""`fit` of a model that is no distiller, from a backup."""

import keras

from keras_distill.training import resuming
from keras_distill.training.backup import exchange_backup
from keras_distill.training.fit import Fitting


def fit_from_backup(
    model: keras.Model, x, y=None, *, epochs: int, callbacks, **arguments
) -> keras.callbacks.History:
    """Call `fit`, where a `kd.BackupAndRestore` among the callbacks works on any model.

    A distiller's `fit` does so itself. For other models the backups are made at the ends
    of epochs.

    Args:
        model: a distiller or another model.
        x, y, epochs, callbacks, **arguments: as in `fit`.
    """
    callbacks = list(callbacks)
    if not isinstance(model, Fitting):
        backup = exchange_backup(callbacks)
        size = arguments.get("batch_size")
        steps = model.steps_per_execution
        x, _ = resuming.resume(backup, x, size, epochs, arguments, steps)
    return model.fit(x, y, epochs=epochs, callbacks=callbacks, **arguments)
