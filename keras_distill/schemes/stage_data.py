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
        x, y, arguments = split({**arguments, "validation_data": validation_data}, x, y)
        self.x, batch = first_batch.data_and_batch(x, y)
        self.y, self.arguments = y, arguments
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


def split(arguments: dict, x, y) -> tuple:
    """Hold out the samples of `validation_split`, for stages without labels too.

    Args:
        arguments: of `fit`.
        x, y: arrays, if there is a split, of which the last samples are held out.

    Returns:
        Inputs, labels and arguments of `fit`, without a split and with validation data.

    Raises:
        ValueError: the data are no arrays, or validation data are passed too.
    """
    arguments = dict(arguments)
    part = arguments.pop("validation_split", None) or 0.0
    if not part:
        return x, y, arguments
    given = {"x": x, "y": y, "sample_weight": arguments.pop("sample_weight", None)}
    given = {name: x for name, x in given.items() if x is not None}
    first = _first_held_out(part, given, arguments["validation_data"])

    def cut(rows):
        return keras.tree.map_structure(lambda x: x[rows], given)

    trained, held = cut(slice(first)), cut(slice(first, None))
    arguments["validation_data"] = tuple(map(held.get, ("x", "y", "sample_weight")))
    x, y = trained.pop("x"), trained.pop("y", None)
    return x, y, {**arguments, **trained}


def _first_held_out(part: float, given: dict, validation_data) -> int:
    """Return the index of the first sample that is held out."""
    leaves = keras.tree.flatten(given)
    if validation_data is not None or not all(getattr(x, "shape", ()) for x in leaves):
        raise ValueError(
            "validation_split holds out samples of arrays, where there is no "
            f"validation_data; got {type(given['x']).__name__}. Pass validation_data alone."
        )
    count = leaves[0].shape[0]
    first = int(count * (1.0 - part))
    if not 0 < first < count:
        raise ValueError(
            f"validation_split={part} leaves {first} of {count} samples to train on. Pass "
            "a fraction that leaves some on both sides."
        )
    return first
