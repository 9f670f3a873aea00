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
            scaled = distiller.optimizer.scale_loss(loss.total)
            logs = distiller.update_logs(*batch, loss)
        after = [[scope.get_current_value(v) for v in part] for part in updated]
        return scaled, (logs, *after)

    (_, (logs, non_trainable, of_metrics)), gradients = jax.value_and_grad(
        run, has_aux=True
    )(trainable)
    trainable, of_optimizer = distiller.optimizer.stateless_apply(
        of_optimizer, gradients, trainable
    )
    return logs, (trainable, non_trainable, of_optimizer, of_metrics)
