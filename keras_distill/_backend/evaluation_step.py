"""An evaluation step that runs teacher and terms, and changes nothing but metrics."""

import keras


def test_step(distiller, *arguments):
    """Evaluate a batch; return the logs, on JAX with the state after it.

    Whatever else assigns to a variable, such as seeds or moving statistics, is undone.
    """
    *state, data = arguments
    batch = keras.utils.unpack_x_y_sample_weight(data)
    if state:
        return _from_state(distiller, *state, batch)
    # Keras takes the value of what is regularized from the scope alone.
    penalized = [v for v in distiller.trainable_variables if v.regularizer is not None]
    mapping = [(variable, variable.value) for variable in penalized]
    with keras.StatelessScope(mapping, collect_losses=True) as scope:
        entered = distiller.enter(batch, training=False)
        loss = distiller.judge(*entered)
    for variable in distiller.metrics_variables:
        value = scope.get_current_value(variable)
        if value is not None:
            variable.assign(value)
    return distiller.update_logs(*entered, loss)


def _from_state(distiller, state, batch) -> tuple:
    trainable, non_trainable, of_metrics = state
    kinds = (
        distiller.trainable_variables,
        distiller.non_trainable_variables,
        distiller.metrics_variables,
    )
    mapping = [
        pair
        for variables, values in zip(kinds, state, strict=True)
        for pair in zip(variables, values, strict=True)
    ]
    with keras.StatelessScope(mapping, collect_losses=True) as scope:
        entered = distiller.enter(batch, training=False)
        loss = distiller.judge(*entered)
        logs = distiller.update_logs(*entered, loss)
    of_metrics = [scope.get_current_value(v) for v in kinds[-1]]
    return logs, (trainable, non_trainable, of_metrics)
