"""Where a killed run is resumed: the epochs and batches that a new one leaves out."""

from collections.abc import Sequence

import keras


def resume(backup, x, arguments: dict, random_layers: Sequence[str] = ()) -> tuple:
    """Find a backup, and advance the data to where it was made.

    Args:
        backup: a `kd.BackupAndRestore`, or None.
        x: the data.
        arguments: of `fit`, the others; `initial_epoch` and `steps_per_epoch` are set.
        random_layers: names of the random layers that run on the data before the step.

    Returns:
        The data, and the number of batches of the first epoch to leave out.

    Raises:
        ValueError: the data come in an order, or pass random layers, that cannot be
            repeated.
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
    epoch, left_out = backup.find()
    # The data start at this call's `initial_epoch`.
    x = _advance(x, max(epoch - arguments.get("initial_epoch", 0), 0), arguments)
    if epoch:
        arguments["initial_epoch"] = epoch
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


def _advance(x, epochs: int, arguments: dict):
    """Advance data past some epochs; a shuffle draws a new order each time it begins.

    Keras creates iterators of a `tf.data.Dataset` more than once per epoch, how often
    depends on the backend; a repeated one is iterated once, and shuffles in each pass.
    """
    if not hasattr(x, "element_spec"):
        return x
    steps = arguments.get("steps_per_epoch")
    is_set = callable(getattr(x, "cardinality", None))
    count = int(x.cardinality()) if is_set else -1
    if steps is not None and steps != count:
        # Finite data start over when they end.
        return (x.repeat() if count > 0 else x).skip(epochs * steps) if epochs else x
    for _ in range(epochs):
        iter(x)
    if count > 0:
        x, arguments["steps_per_epoch"] = x.repeat(), count
    return x
