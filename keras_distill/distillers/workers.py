"""Several workers: what Keras's own `fit` needs to train across processes."""

from __future__ import annotations

import keras


class AcrossWorkers:
    """Let Keras build a model from what a worker holds of a batch.

    To build metrics and optimiser, Keras takes the mean of a batch over all replicas
    outside of a traced function, which fails across processes (keras issue 20585). The
    shapes of the first local replica's part do as well.
    """

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


def _of_first_replica(batch, strategy):
    return keras.tree.map_structure(
        lambda x: strategy.experimental_local_results(x)[0], batch
    )
