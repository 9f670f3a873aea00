"""The loss and the metrics of a model whose class has its own `compute_loss`."""

import contextlib
import threading

import keras
import numpy as np

from keras_distill._backend.replaced_methods import replaced

_leaving_out = threading.local()


def own_loss(model: keras.Model, x, y, y_pred, sample_weight, training: bool):
    """Return the loss that a model computes itself, its penalties included.

    Stands in for a public form of `keras.Model._compute_loss`, for which no public issue
    asks: an older `compute_loss` takes no `training`.
    """
    loss = model._compute_loss(x, y, y_pred, sample_weight, training=training)
    return keras.ops.zeros(()) if loss is None else loss


def build_compiled(model: keras.Model, batch) -> None:
    """Build the metrics and the loss that a model was compiled with, not its optimizer.

    Stands in for a public form of `keras.Model._symbolic_build`, as
    `TrainerHooks.build_state` does.
    """
    optimizer, model.optimizer = model.optimizer, None
    try:
        model._symbolic_build(data_batch=batch)
    finally:
        model.optimizer = optimizer


@contextlib.contextmanager
def without_penalties(model: keras.Model):
    """Leave a model's penalties out of its `losses`, within this thread.

    Stands in for a public way to compute a model's loss without its penalties, for which
    no public issue asks: `keras.Model.compute_loss` adds `losses`, which Keras itself
    replaces on JAX by `_losses_override`.
    """
    if not model.losses:
        yield
        return
    outer = getattr(_leaving_out, "models", ())
    with replaced([model], "_losses_override", _NoPenalties):
        _leaving_out.models = (*outer, id(model))
        try:
            yield
        finally:
            _leaving_out.models = outer


@contextlib.contextmanager
def with_penalties(model: keras.Model, penalties: list):
    """Replace a model's `losses` by the penalties of a finished run, if there are any.

    Stands in for a public way to set `keras.Layer._losses_override`; see
    `without_penalties`.
    """
    if not penalties:
        yield
        return
    previous = vars(model)["_losses_override"]
    vars(model)["_losses_override"] = list(penalties)
    try:
        yield
    finally:
        vars(model)["_losses_override"] = previous


class _NoPenalties(list):
    """A zero in place of a model's penalties; replicas share the model, in other threads.

    Keras looks at the model's penalties wherever this is falsy.
    """

    def __init__(self, previous, model):
        super().__init__([np.zeros((), "float32")])
        self.key = id(model)

    def __bool__(self):
        return self.key in getattr(_leaving_out, "models", ())
