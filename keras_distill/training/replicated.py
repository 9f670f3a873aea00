"""Several replicas: what Keras's own `fit` lacks to train them and keep them alike."""

from __future__ import annotations

import contextlib

import keras

from keras_distill.strategies.replicas import NO_SAMPLES, across_workers
from keras_distill.training.resuming import shuffled_by_fit


class AcrossWorkers:
    """Train on several replicas, which end with the same weights.

    To build metrics and optimiser, Keras takes the mean of a batch over all replicas
    outside of a traced function, which fails across processes (keras issue 20585). The
    shapes of the first local replica's part do as well.

    Moving means, as those of batch normalisation, are each replica's own in Keras 3.
    Each takes the mean of all before it is evaluated, saved or done.
    """

    _sharing = None

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is not None and self._distribute_strategy is not None:
            for _, _, batches in iterator:
                batch = next(batches)
                break
            iterator, data_batch = (
                None,
                _of_first_replica(batch, self.distribute_strategy),
            )
        super()._maybe_symbolic_build(iterator, data_batch)

    def order_is_shared(self, x, arguments: dict) -> None:
        """Refuse data that each worker would shuffle for itself and take its part of.

        Args:
            x: the data.
            arguments: of `fit`, the others.

        Raises:
            ValueError: some samples would be taken twice and others left out.
        """
        strategy = getattr(self, "distribute_strategy", None)
        if strategy is None or not shuffled_by_fit(x, arguments):
            return
        with strategy.scope():
            if across_workers():
                raise ValueError(
                    "Each worker takes its part of the data, so all must draw the same "
                    "order, which `fit` does not see to where it shuffles. Give "
                    "shuffle=False, or kd.data.batches(samples, shuffle=True)."
                )

    def share_statistics(self) -> None:
        """Give each replica the mean of what all hold in variables that are not trained."""
        strategy = getattr(self, "distribute_strategy", None)
        if strategy is None or strategy.num_replicas_in_sync == 1:
            return
        if self._sharing is None:
            import tensorflow as tf

            layers = self.replicated_layers()
            found = [v for layer in layers for v in layer.non_trainable_variables]
            found = [v for v in found if tf.as_dtype(v.dtype).is_floating]
            self._sharing = tf.function(lambda: strategy.run(_share, args=(found,)))
        self._sharing()


@contextlib.contextmanager
def no_samples_refused():
    """Raise what a step says of a replica without samples as a ValueError."""
    try:
        yield
    except Exception as error:
        if NO_SAMPLES in str(error):
            raise ValueError(NO_SAMPLES) from error
        raise


def _share(variables) -> None:
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    for variable in variables:
        every = context.all_gather(variable.value[None], axis=0)
        # Exactly the value where all have the same.
        variable.assign(every[0] + tf.reduce_mean(every - every[0], axis=0))


def _of_first_replica(batch, strategy):
    return keras.tree.map_structure(
        lambda x: strategy.experimental_local_results(x)[0], batch
    )
