"""A training step on JAX, from a state to the next."""

import keras


def train_step(distiller, state, data) -> tuple:
    """Take one step; return the logs and the state after it."""
    import jax

    trainable, non_trainable, of_optimizer, of_metrics = state
    updated = distiller.non_trainable_variables, distiller.metrics_variables
    variables = [*updated[0], *distiller.optimizer.variables, *updated[1]]
    values = [*non_trainable, *of_optimizer, *of_metrics]

    def run(trainable):
        mapping = [
            *zip(distiller.trainable_variables, trainable, strict=True),
            *zip(variables, values, strict=True),
        ]
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            batch = distiller.enter(data)
            knowledge = distiller.run_teacher(*batch[:2])
            loss = distiller.run_student(*batch, knowledge)
            scaled = distiller.objectives(loss)
            logs = distiller.update_logs(*batch, loss)
        after = [[scope.get_current_value(v) for v in part] for part in updated]
        return scaled, (logs, *after)

    scaled, pull_back, aux = jax.vjp(run, trainable, has_aux=True)
    logs, non_trainable, of_metrics = aux
    gradients = [pull_back(each)[0] for each in _one_by_one(scaled)]
    trainable, of_optimizer = distiller.optimizer.stateless_apply(
        of_optimizer, distiller.joined(gradients), trainable
    )
    return logs, (trainable, non_trainable, of_optimizer, of_metrics)


def _one_by_one(scalars: list) -> list:
    """Return the gradient of each scalar in turn by all of them."""
    import jax.numpy as jnp

    count = range(len(scalars))
    return [[jnp.full_like(scalars[j], float(i == j)) for j in count] for i in count]
