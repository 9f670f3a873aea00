"""A training step on torch."""


def train_step(distiller, data) -> dict:
    """Take one step; return the logs."""
    import torch

    with torch.no_grad():
        batch = distiller.enter(data)
        knowledge = distiller.run_teacher(*batch[:2])
    variables = distiller.trainable_variables
    for variable in variables:
        # The module's own `zero_grad` does not reach models inside of models.
        variable.value.grad = None
    loss = distiller.run_student(*batch, knowledge)
    distiller.optimizer.scale_loss(loss.total).backward()
    with torch.no_grad():
        gradients = [variable.value.grad for variable in variables]
        distiller.optimizer.apply(gradients, variables)
        return distiller.update_logs(*batch, loss)
