"""A model's state outside its variables, where `fit` keeps it on JAX."""

import keras


def _kinds(model) -> tuple:
    return (
        model.trainable_variables,
        model.non_trainable_variables,
        model.metrics_variables,
    )


def values_of(model, state) -> dict:
    """Return the values of trainable, other and metric variables by the variable's `id`."""
    pairs = zip(_kinds(model), state, strict=True)
    return {id(v): x for kind, part in pairs for v, x in zip(kind, part, strict=True)}


def state_of(model, values: dict) -> tuple:
    """Return the state of a model from values by the variable's `id`."""
    return tuple([values[id(v)] for v in kind] for kind in _kinds(model))


def held_values(models, variables) -> list:
    """Return the arrays that a compiled step holds of models that it does not update.

    On JAX they are constants of the step, as the state has a distiller's variables alone.
    Elsewhere a step reads variables, and holds none.
    """
    if keras.backend.backend() != "jax":
        return []
    updated = {id(variable) for variable in variables}
    return [v.value for m in models for v in m.variables if id(v) not in updated]


def sync_variables(model) -> None:
    """Assign the values that the loop of `fit` holds to a model's variables."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def keep_state(model, state) -> None:
    """Set a model's state to that after a step that is about to raise an error.

    JAX has donated the buffers of the state before. Stands in for a public way to set
    `keras.Model._jax_state`, which Keras sets when a step returns; no public issue asks
    for it.
    """
    parts = "trainable", "non_trainable", "optimizer", "metrics"
    names = [f"{part}_variables" for part in parts]
    model._jax_state = dict(zip(names, state, strict=True))


def keep_state_before(model, arguments: tuple) -> None:
    """Set a model's state to that before a step that failed, so that no weight is lost.

    `fit` takes the values out of the variables. Those whose buffers the step has donated
    can't be kept.

    Args:
        model: of the step.
        arguments: of the step; on JAX the first is the state.
    """
    if keras.backend.backend() != "jax" or not isinstance(arguments[0], tuple):
        return
    state = arguments[0]
    if not any(value.is_deleted() for part in state for value in part):
        keep_state(model, state)


def restoring(model, function):
    """Return a test function that leaves a model's variables as they were if it fails.

    `evaluate` takes the values out of the variables, and puts them back when it is done.
    Stands in for a `finally` in `keras.Model.evaluate` on JAX, for which no public issue
    asks.
    """

    def run(state, iterator):
        try:
            return function(state, iterator)
        except StopIteration:
            raise
        except Exception:
            for variables, values in zip(_kinds(model), state, strict=True):
                for variable, value in zip(variables, values, strict=True):
                    if not value.is_deleted():
                        variable.assign(value)
            raise

    return run


def losses_of_run(model) -> list:
    """Return the penalties of a finished stateless run, which replace `model.losses`.

    Stands in for a public form of `keras.Layer._losses_override`, which Keras sets on JAX
    around `compute_loss`; empty elsewhere. keras-team/keras issue 19430 is about them.
    """
    return model._losses_override
