"""Where a killed run is resumed: the epochs and batches that a new one leaves out."""

import random
import warnings
from collections.abc import Sequence

import keras
import numpy as np

from keras_distill._backend.tensorflow_data import passes_per_epoch


def resume(
    backup,
    x,
    batch_size: int | None,
    epochs: int,
    arguments: dict,
    steps_per_execution: int = 1,
    random_layers: Sequence[str] = (),
) -> tuple:
    """Find a backup, and advance the data to where it was made.

    Args:
        backup: a `kd.BackupAndRestore`, or None.
        x: the data.
        batch_size, epochs: of `fit`.
        arguments: of `fit`, the others; `initial_epoch` is set.
        steps_per_execution: of the compiled step.
        random_layers: names of the random layers that run on the data before the step.

    Returns:
        The data, and the number of batches of the first epoch to leave out.

    Raises:
        ValueError: the data come in an order, pass random layers, or end within an
            epoch, so that they cannot be repeated.
    """
    if backup is None:
        return x, 0
    if random_layers:
        raise ValueError(
            f"BackupAndRestore cannot resume the random layers {list(random_layers)}: they "
            "run on raw data, in front of a model's own preprocessing, several batches "
            "ahead of the step. Pass no backup, augment the data themselves with seeded "
            "operations, or set the model's `preprocessor` to None and pass what it "
            "returns."
        )
    if backup.save_freq != "epoch":
        _check_order(x, arguments)
    _check_loader(x)
    _check_validation(arguments)
    epoch, left_out, ended = backup.find()
    # The data start at this call's `initial_epoch`.
    begin = arguments.get("initial_epoch", 0)
    counted = _per_epoch(arguments.get("steps_per_epoch"), steps_per_execution)
    _check_passes(x, counted, batch_size, epochs - begin)
    backup.reads_on = counted is not None
    x = _advance(x, max(epoch - begin, 0), counted)
    _advance_validation(arguments, range(begin, epoch))
    if epoch:
        # Of a run that had ended, no epoch is left.
        arguments["initial_epoch"] = max(epoch, epochs) if ended else epoch
    return x, left_out


def skipping(model, train):
    """Return a step that reads the batches which the plan leaves out, and then trains."""
    executions = -(-model.plan.left_out // model.steps_per_execution)
    left = iter(range(executions))

    def step(*arguments):
        *state, data = arguments
        if next(left, None) is None:
            return train(*arguments)
        if hasattr(data, "__next__"):
            for _ in range(model.steps_per_execution):
                next(data, None)
        return ({}, *state) if state else model.means(training=True)

    return step


def shuffled_by_fit(x, arguments: dict) -> bool:
    """Whether `fit` shuffles the data, in an order that it draws anew."""
    if hasattr(x, "element_spec") or hasattr(x, "__next__"):
        # Of arrays that are prepared as a `tf.data.Dataset`.
        return getattr(x, "order_is_drawn", False)
    endless = isinstance(x, keras.utils.PyDataset) and x.num_batches is None
    return bool(arguments.get("shuffle", True)) and not endless


def _check_order(x, arguments: dict) -> None:
    if shuffled_by_fit(x, arguments):
        raise ValueError(
            "BackupAndRestore with save_freq in batches resumes in the middle of an "
            "epoch, but the order of data that `fit` shuffles cannot be repeated. "
            "Pass shuffle=False, or kd.data.batches(samples, shuffle=True), or "
            "save_freq='epoch'."
        )


def _check_loader(x) -> None:
    """Check that a torch `DataLoader` draws from torch's generator, which is backed up."""
    if hasattr(x, "batch_sampler") and getattr(x, "generator", None) is not None:
        raise ValueError(
            "BackupAndRestore cannot resume a DataLoader with a generator of its own, "
            "whose state is not backed up. Leave out its generator, and set the seed by "
            "keras.utils.set_random_seed or torch.manual_seed."
        )


def _check_validation(arguments: dict) -> None:
    """Check that each evaluation in `fit` begins where the one before did."""
    steps, data = arguments.get("validation_steps"), arguments.get("validation_data")
    batches = _batches_of(data, arguments.get("validation_batch_size"))
    if steps and hasattr(data, "element_spec") and batches != steps:
        raise ValueError(
            f"BackupAndRestore cannot resume with validation_steps={steps} on data of "
            f"{batches if batches > 0 else 'any number of'} batches: each evaluation reads "
            "on where the one before ended. Pass data.take(steps), without "
            "validation_steps."
        )


def _per_epoch(steps: int | None, steps_per_execution: int) -> int | None:
    """Return the batches that an epoch of counted steps reads: whole executions."""
    return steps and -(-steps // steps_per_execution) * steps_per_execution


def _check_passes(x, counted: int | None, batch_size: int | None, epochs: int) -> None:
    """Check that data can be advanced to where any epoch of counted steps begins."""
    if counted is not None and hasattr(x, "element_spec") and not hasattr(x, "skip"):
        raise ValueError(
            f"BackupAndRestore cannot advance a {type(x).__name__} to where an epoch of "
            "steps_per_epoch begins. Pass the tf.data.Dataset itself, which `fit` divides."
        )
    batches = _batches_of(x, batch_size)
    if counted is None or not batches > counted:
        return
    if not hasattr(x, "element_spec"):
        raise ValueError(
            f"BackupAndRestore cannot resume epochs of {counted} batches within the "
            f"{batches} of a {type(x).__name__}. Pass them as a tf.data.Dataset, or leave "
            "out steps_per_epoch."
        )
    # On torch a new pass draws from its generator, which no epoch in between can repeat.
    draws = keras.backend.backend() == "torch"
    if counted * epochs > batches and (batches % counted or draws):
        raise ValueError(
            f"BackupAndRestore cannot resume epochs of {counted} batches on data of "
            f"{batches}, which end within {'the run' if draws else 'an epoch'}. Pass "
            f"data.repeat(){'' if draws else f', or steps that divide {batches}'}."
        )


def _batches_of(x, batch_size: int | None = None) -> int:
    """Return the number of batches of data; negative if they have no known end."""
    if hasattr(x, "element_spec"):
        cardinality = getattr(x, "cardinality", None)
        return int(cardinality()) if callable(cardinality) else -1
    if isinstance(x, keras.utils.PyDataset):
        return -1 if x.num_batches is None else x.num_batches
    arrays = [leaf for leaf in keras.tree.flatten(x) if hasattr(leaf, "shape")]
    # Without a batch size, Keras divides arrays into the steps of an epoch.
    return -(-arrays[0].shape[0] // batch_size) if arrays and batch_size else -1


def _advance(x, epochs: int, counted: int | None):
    """Advance data past some epochs, as `fit` reads them.

    A shuffle draws a new order for each iterator.
    """
    if not epochs:
        return x
    if isinstance(x, keras.utils.PyDataset):
        _repeat_epochs(x, epochs)
    if hasattr(x, "__next__"):
        for _ in range(epochs * (counted or 0)):
            next(x, None)
    if not hasattr(x, "element_spec"):
        return x
    batches = _batches_of(x)
    if counted is None:
        passes, rest = epochs * passes_per_epoch(batches), 0
    elif batches > 0:
        passes, rest = divmod(epochs * min(counted, batches), batches)
    else:
        passes, rest = 0, epochs * counted
    for _ in range(passes):
        iter(x)
    if not rest:
        return x
    # Finite data start over when they end.
    return (x.repeat() if batches > 0 else x).skip(rest)


def _repeat_epochs(parts: keras.utils.PyDataset, epochs: int) -> None:
    """Call what a `PyDataset` does around each epoch, such as drawing an order."""
    before = random.getstate(), np.random.get_state()[1].tobytes()
    for _ in range(epochs):
        parts.on_epoch_begin()
        parts.on_epoch_end()
    if before != (random.getstate(), np.random.get_state()[1].tobytes()):
        warnings.warn(
            f"on_epoch_begin or on_epoch_end of {type(parts).__name__} draws from a global "
            "generator: the resumed run has another order than the one that was stopped. "
            "Draw from a generator of its own, such as np.random.default_rng(0).",
            stacklevel=2,
        )


def _advance_validation(arguments: dict, epochs: range) -> None:
    """Advance validation data that are shuffled anew in each pass."""
    validation = arguments.get("validation_data")
    if hasattr(validation, "element_spec") and not arguments.get("validation_steps"):
        done = sum(_validates(epoch, arguments) for epoch in epochs)
        _advance(validation, done, None)


def _validates(epoch: int, arguments: dict) -> bool:
    chosen = arguments.get("validation_freq", 1)
    if isinstance(chosen, int):
        return (epoch + 1) % chosen == 0
    return epoch + 1 in chosen
