"""What Keras's `fit` lacks to train several replicas and keep them alike."""

import contextlib

import keras

from keras_distill.strategies.replicas import NO_SAMPLES, across_workers
from keras_distill.training.resuming import shuffled_by_fit


class ShareStatistics(keras.callbacks.Callback):
    """Share moving statistics among all replicas before they are evaluated or saved.

    Those of batch normalization, for one, are each replica's own in Keras 3.
    """

    async_safe = True

    def on_test_begin(self, logs=None):
        """Before the validation of an epoch."""
        self.model.share_statistics()

    def on_epoch_end(self, epoch, logs=None):
        """Before the user's callbacks see the model."""
        self.model.share_statistics()


def check_shared_order(model, x, arguments: dict) -> None:
    """Check that workers do not each shuffle the data before taking their part.

    Some samples would be taken twice and others left out.
    """
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is None or not shuffled_by_fit(x, arguments):
        return
    with strategy.scope():
        if across_workers():
            raise ValueError(
                "Each worker takes its part of the data, so all must draw the same "
                "order, which `fit` does not ensure where it shuffles. Pass "
                "shuffle=False, or kd.data.batches(samples, shuffle=True)."
            )


def share_statistics(model) -> None:
    """Assign the mean over all replicas to each untrained variable of floats."""
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return
    if model.sharing is None:
        import tensorflow as tf

        layers = model.replicated_layers()
        variables = [v for layer in layers for v in layer.non_trainable_variables]
        variables = [v for v in variables if tf.as_dtype(v.dtype).is_floating]
        model.sharing = tf.function(
            lambda: strategy.run(_assign_means, args=(variables,))
        )
    model.sharing()


@contextlib.contextmanager
def no_samples_as_value_error():
    """Raise the failure of a replica without samples as a ValueError."""
    try:
        yield
    except Exception as error:
        if NO_SAMPLES in str(error):
            raise ValueError(NO_SAMPLES) from error
        raise


def _assign_means(variables) -> None:
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    for variable in variables:
        values = context.all_gather(variable.value[None], axis=0)
        # Exactly the value where all have the same.
        variable.assign(values[0] + tf.reduce_mean(values - values[0], axis=0))
