"""What a run that goes on leaves out: epochs and batches that it has had."""

from __future__ import annotations

import keras

from keras_distill.training.backup import exact


class Resuming:
    """Let `fit` go on from a backup in the middle of an epoch."""

    left_out = 0

    def resume(self, x, callbacks, arguments: dict) -> tuple:
        """Find a backup and move the data to where it was made.

        Args:
            x: the data.
            callbacks: of `fit`.
            arguments: of `fit`, the others; steps_per_epoch is filled in.

        Returns:
            The data and the callbacks.

        Raises:
            ValueError: the data come in an order that can't be found again.
        """
        callbacks, backup = exact(callbacks)
        self.left_out = 0
        if backup is None:
            return x, callbacks
        if backup.save_freq != "epoch":
            _order_is_known(x, arguments)
        epoch, self.left_out = backup.find()
        # The data began with the first epoch of this command.
        begun = max(epoch - arguments.get("initial_epoch", 0), 0)
        return _after(x, begun, arguments), callbacks

    def resumed(self) -> None:
        """Forget what was left out."""
        # Keras would begin the next call at the same epoch.
        self._initial_epoch = None
        if self.left_out:
            self.left_out = 0
            self.train_function = None

    def make_train_function(self, force=False):
        """Make the step, which at first only reads the batches that are left out."""
        super().make_train_function(force)
        if self.left_out:
            self.train_function = self._leaving_out(self.train_function)

    def _leaving_out(self, train):
        executions = -(-self.left_out // self.steps_per_execution)
        left = iter(range(executions))

        def step(*arguments):
            *state, data = arguments
            if next(left, None) is None:
                return train(*arguments)
            if hasattr(data, "__next__"):
                for _ in range(self.steps_per_execution):
                    next(data, None)
            return ({}, *state) if state else self.means(training=True)

        return step


def shuffled_by_fit(x, arguments: dict) -> bool:
    """Tell whether `fit` shuffles the data, in an order that it draws anew.

    Args:
        x: the data: arrays, a `PyDataset`, or what brings its own order.
        arguments: of `fit`, the others.
    """
    if hasattr(x, "element_spec") or hasattr(x, "__next__"):
        return False
    endless = isinstance(x, keras.utils.PyDataset) and x.num_batches is None
    return bool(arguments.get("shuffle", True)) and not endless


def _order_is_known(x, arguments: dict) -> None:
    if shuffled_by_fit(x, arguments):
        raise ValueError(
            "BackupAndRestore with save_freq in batches goes on in the middle of an "
            "epoch, but the order of data that `fit` shuffles can't be found again. "
            "Give shuffle=False, or kd.data.batches(samples, shuffle=True), or "
            "save_freq='epoch'."
        )


def _after(x, epochs: int, arguments: dict):
    """Move data past some epochs; a shuffle draws a new order each time it is begun.

    Keras begins a `tf.data.Dataset` more often than once an epoch, and not alike on all
    backends; one that repeats is begun once, and repeats its parts once an epoch.
    """
    if not hasattr(x, "element_spec"):
        return x
    steps = arguments.get("steps_per_epoch")
    is_set = callable(getattr(x, "cardinality", None))
    count = int(x.cardinality()) if is_set else -1
    if steps is not None and steps != count:
        # What has an end begins anew there.
        return (x.repeat() if count > 0 else x).skip(epochs * steps) if epochs else x
    for _ in range(epochs):
        iter(x)
    if count > 0:
        x, arguments["steps_per_epoch"] = x.repeat(), count
    return x
