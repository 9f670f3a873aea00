"""`fit`, with data and models looked at before the first step."""

from __future__ import annotations

from keras_distill.distillers import term_checks as checks
from keras_distill.training.callbacks import SameStatistics, StopAtNotFinite, before
from keras_distill.training.lean_step import LeanStep
from keras_distill.training.replicated import AcrossWorkers, no_samples_refused
from keras_distill.training.resuming import Resuming
from keras_distill.training.watching import Watching


class Fitting(Watching, AcrossWorkers, Resuming, LeanStep):
    """What all distillers do around Keras's `fit`.

    A distiller has `can_fit`, its own checks, and `part_names`, the parts of the loss
    that must stay finite.
    """

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        **kwargs,
    ):
        """Train as `keras.Model.fit` does, on data that were looked at first.

        Arrays are looked at whole, of other data the first batch. Stopped and called
        again with `keras.callbacks.BackupAndRestore`, it goes on after the last batch
        that was saved, with all that it knew then: a run that was killed ends as one
        that was not, if its data come in an order that a seed decides and no
        `kd.RemotePeers` teach.

        Raises:
            ValueError: there is no teacher, the data are empty, labels lie outside the
                classes, the compiled loss takes probabilities, a backup is damaged, of
                another model or of data in no known order, workers would shuffle data
                each for itself, or, while training, a part of the loss is not finite
                or a replica gets no samples.
        """
        x, batch = checks.first_batch(x, y)
        self.can_fit(batch)
        self.order_is_shared(x, kwargs)
        self.watch(callbacks or [])
        callbacks = before(self.own_callbacks(), callbacks)
        x, callbacks = self.resume(x, callbacks, kwargs)
        self.look_at_length(x)
        self.build_state(batch)
        try:
            with no_samples_refused():
                return super().fit(
                    x, y, batch_size, epochs, verbose, callbacks, **kwargs
                )
        finally:
            self.resumed()

    def own_callbacks(self) -> list:
        """Give the callbacks that stand before the user's."""
        return [StopAtNotFinite(), SameStatistics()]
