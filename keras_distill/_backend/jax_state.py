"""JAX's state of a model, and that of the models inside it."""

from __future__ import annotations

import keras


def _kinds(model) -> tuple:
    return (
        model.trainable_variables,
        model.non_trainable_variables,
        model.metrics_variables,
    )


def values_of(model, state) -> dict:
    """Give values by variable.

    Args:
        model: compiled.
        state: values of its trainable, other and metric variables.
    """
    pairs = zip(_kinds(model), state, strict=True)
    return {id(v): x for kind, part in pairs for v, x in zip(kind, part, strict=True)}


def state_of(model, values: dict) -> tuple:
    """Give the state of a model out of values by variable."""
    return tuple([values[id(v)] for v in kind] for kind in _kinds(model))


def synchronise(model) -> None:
    """Give a model's variables, inside of `fit`, the values that its loop holds."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()
