"""`fit`: what a distiller does before the first step, around each, and after the last."""

import contextlib
import dataclasses
from typing import Any

import keras

from keras_distill._backend.jax_state import restoring
from keras_distill._backend.keras_trainer import TrainerHooks
from keras_distill._backend.own_arrays import with_own_arrays
from keras_distill._backend.tensorflow_data import reads_generator
from keras_distill.training import array_checks, lean_step, resuming, watching, workers
from keras_distill.training.backup import exchange_backup
from keras_distill.training.first_batch import data_and_batch


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a step must know about the current `fit`.

    Args:
        left_out: batches at the start that an earlier run has already trained on.
        length_is_known: whether Keras asks for no batch past the end of the data.
        saves_by_batch: whether a callback saves in the middle of an epoch.
        batch: the first, or all of the data if they are arrays; None if unknown.
        is_read_once: whether reading the data again would lose that batch.
    """

    left_out: int = 0
    length_is_known: bool = False
    saves_by_batch: bool = False
    batch: object = None
    is_read_once: bool = False


class Fitting(TrainerHooks):
    """What all distillers do around Keras's `fit`.

    A mixin in front of `keras.Model`. A distiller has `check_fit` and `check_validation`,
    its own checks, `part_names`, the parts of the loss that must stay finite, `means`, the
    running means of its logs, and `replicated_layers`, whose moving statistics all
    replicas share.
    """

    plan = Plan()
    sharing = None
    # Names of the random layers that run on the data before the step.
    drawn_before_step = ()
    # Rows of arrays that are looked at before training: a batch.
    rows_to_check = 32
    # Rows of a step; None where the data are batches.
    rows_of_step = None

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        **arguments: Any,
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does, once data and models are checked."""
        x, batch = data_and_batch(x, y)
        batch = self._checked(x, batch, batch_size, arguments)
        workers.check_shared_order(self, x, arguments)
        callbacks = _in_front(self.own_callbacks(), callbacks)
        x, left_out = resuming.resume(
            exchange_backup(callbacks),
            x,
            batch_size,
            epochs,
            arguments,
            self.steps_per_execution,
            self.drawn_before_step,
        )
        plan = Plan(
            left_out,
            lean_step.length_is_known(x),
            watching.saves_by_batch(callbacks),
            batch,
            reads_generator(x),
        )
        with self._following(plan), workers.no_samples_as_value_error():
            x = with_own_arrays(self, x)
            return super().fit(
                x, y, batch_size, epochs, verbose, callbacks, **arguments
            )

    def _checked(self, x, batch, batch_size: int | None, arguments: dict):
        """Check data and models, and return the first batch with its weights."""
        self.rows_to_check = batch_size or 32
        is_array = batch is not None and batch[0] is x
        self.rows_of_step = self.rows_to_check if is_array else None
        weight = arguments.get("sample_weight")
        if is_array and weight is not None:
            batch = *batch, weight
        if batch is not None:
            self.check_data(batch, weight)
        self.check_fit(batch)
        if batch is not None:
            _, labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
            self.check_validation(labels, _has_validation(arguments))
        return batch

    @contextlib.contextmanager
    def _following(self, plan: Plan):
        """Train by a plan; a step that leaves out batches is compiled for it alone."""
        self.plan = plan
        try:
            watching.restart(self.train_function)
            if plan.left_out:
                self.train_function = None
            lean_step.build_state(self, plan.batch)
            yield
        finally:
            self.plan = Plan()
            if plan.left_out:
                self.train_function = None

    def train_on_batch(self, x, y=None, sample_weight=None, **arguments):
        """Take one step on a batch, checked before the first as `fit` checks it."""
        is_first, self.rows_of_step = self.train_function is None, None
        # A look at tensors of a device waits for it, which is too slow for every step.
        self.check_data((x, y), sample_weight, device=is_first)
        if is_first:
            self.check_fit((x, y, sample_weight))
        return super().train_on_batch(x, y, sample_weight, **arguments)

    def make_train_function(self, force=False):
        """Compile the step, and wrap it in what this `fit` needs around it."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        step = self.train_function
        if lean_step.applies(self):
            step = lean_step.compiled(self, step)
        if self.plan.left_out:
            step = resuming.skipping(self, step)
        self.train_function = watching.WatchedStep(self, step)

    def make_test_function(self, force=False):
        """Compile the evaluation of a batch; an error in it leaves the model as it was."""
        if self.test_function is not None and not force:
            return
        super().make_test_function(force)
        if keras.backend.backend() == "jax":
            self.test_function = restoring(self, self.test_function)

    def batch_read_once(self):
        """Return the first batch of data that reading again would lose, else None."""
        return self.plan.batch if self.plan.is_read_once else None

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """Return the callbacks in front of the user's."""
        return [watching.StopAtNotFinite(), workers.ShareStatistics()]

    def cause_of_nan(self, name: str) -> str:
        """Return why a part of the loss may be NaN, beside values that are not finite."""
        return ""

    def check_data(self, batch, sample_weight=None, device: bool = True) -> None:
        """Check what arrays have in them, as `array_checks.check_data`."""
        x, y, own = keras.utils.unpack_x_y_sample_weight(batch)
        weight = own if sample_weight is None else sample_weight
        array_checks.check_data(x, y, weight, device=device)

    def check_scheduled(self) -> None:
        """Check what callbacks may have assigned to."""

    def epoch_logs(self, logs):
        """Return the means over all replicas, also where some metrics are not shown."""
        means = self.means(training=not set(self.part_names()).isdisjoint(logs))
        return {name: means[name] for name in logs} if set(logs) <= set(means) else logs

    def share_statistics(self) -> None:
        """Assign the mean over all replicas to each untrained variable of floats."""
        workers.share_statistics(self)


def _has_validation(arguments: dict) -> bool:
    """Whether `fit` got validation data among its arguments."""
    given = arguments.get("validation_data") is not None
    return given or bool(arguments.get("validation_split"))


def _in_front(own: list, callbacks):
    """Put callbacks in front of the user's, in the list of these if it is Keras's."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        kinds = tuple(type(callback) for callback in own)
        users = [x for x in callbacks.callbacks if not isinstance(x, kinds)]
        callbacks.callbacks[:] = [*own, *users]
        for callback in own:
            callback.set_model(callbacks.model)
        return callbacks
    return [*own, *keras.tree.flatten(callbacks or [])]
