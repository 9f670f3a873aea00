"""Private parts of Keras's trainers: hooks around a step, and the strategy."""

import types

import keras
from keras.src.trainers.compile_utils import MetricsList


class TrainerHooks:
    """Public names for private hooks that Keras's trainers call.

    A mixin in front of `keras.Model`. Stands in for public hooks of
    `_maybe_symbolic_build`, which fails under `MultiWorkerMirroredStrategy`
    (keras-team/keras issue 20585), and of `_symbolic_build` and
    `_get_metrics_result_or_logs`, for which no public issue asks.
    """

    def build_state(self, batch) -> None:
        """Build metrics, loss and optimizer for a batch; None if only the last is left."""
        super()._symbolic_build(data_batch=batch)

    def epoch_logs(self, logs: dict) -> dict:
        """Return the logs of an epoch from those of its last step."""
        return super()._get_metrics_result_or_logs(logs)

    def batch_read_once(self):
        """Return the first batch of data that reading again would lose, else None."""
        return None

    def models_of_state(self) -> list[keras.Model]:
        """Return the models whose metrics, loss and optimizer `build_state` builds."""
        return [self]

    def _symbolic_build(self, iterator=None, data_batch=None):
        if data_batch is None:
            data_batch = self.batch_read_once()
        # Reading a batch can draw from the generator that decides the order of the data.
        if data_batch is None and not all(map(_is_built, self.models_of_state())):
            for _, _, batches in iterator:
                data_batch = next(iter(batches))
                break
        self.build_state(data_batch)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras reduces a batch over all replicas outside of a traced function, which
        # fails across processes. The shapes of the first local replica's part suffice.
        strategy = strategy_of(self)
        if iterator is not None and self.batch_read_once() is not None:
            data_batch, iterator = self.batch_read_once(), None
        if iterator is not None and strategy is not None:
            for _, _, batches in iterator:
                data_batch = _of_first_replica(next(batches), strategy)
                break
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)

    def _get_metrics_result_or_logs(self, logs):
        return self.epoch_logs(logs)


def forget_compiled(model: keras.Model) -> None:
    """Drop the loss and the metrics of an earlier `compile`.

    Stands in for public attributes of a model that was compiled without them: Keras keeps
    the earlier ones where None is passed. No public issue asks for it.
    """
    model.loss = model._compile_loss = model._compile_metrics = None


class LowerIsBetter(MetricsList):
    """A metric of several means, which a callback with `mode="auto"` wants to be low.

    Stands in for a public way to tell `keras.callbacks.EarlyStopping` so: it looks for
    `_direction` in the metrics of `compile` alone. No public issue asks for one.

    Args:
        names: in the logs.
        name: of the metric.
    """

    def __init__(self, names, name: str):
        keras.Metric.__init__(self, name=name, dtype="float32")
        self.metrics = [types.SimpleNamespace(name=x, _direction="down") for x in names]

    def reset_state(self):
        """Set all variables to zero."""
        keras.Metric.reset_state(self)


def strategy_of(model: keras.Model):
    """Return the `tf.distribute` strategy that a model was created under, or None.

    Stands in for a public form of `keras.Model._distribute_strategy`, for which no public
    issue asks: `distribute_strategy` returns the current one where there was none.
    """
    return getattr(model, "_distribute_strategy", None)


def compiled_loss(model: keras.Model, y, y_pred, sample_weight):
    """Return the loss that was passed to `compile`, without penalties.

    Stands in for a public form of `keras.Model._compile_loss`, for which no public issue
    asks: `compute_loss` adds `model.losses`.
    """
    loss = model._compile_loss(y, y_pred, sample_weight)
    return keras.ops.zeros(()) if loss is None else loss


def _is_built(model: keras.Model) -> bool:
    """Whether Keras needs no batch to build a model's layers, metrics and loss."""
    compiled = model._compile_metrics, model._compile_loss
    return all(part is None or part.built for part in compiled) and all(
        layer.built for layer in model._flatten_layers()
    )


def _of_first_replica(batch, strategy):
    return keras.tree.map_structure(
        lambda x: strategy.experimental_local_results(x)[0], batch
    )
