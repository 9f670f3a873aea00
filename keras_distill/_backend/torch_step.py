"""A training step on torch."""


def train_step(distiller, data) -> dict:
    """Take one step; return the logs."""
    import torch

    with torch.no_grad():
        batch = distiller.enter(data)
        knowledge = distiller.run_teacher(*batch[:2])
    variables = distiller.trainable_variables
    _forget(variables)
    loss = distiller.run_student(*batch, knowledge)
    found, scaled = [], distiller.objectives(loss)
    for i, objective in enumerate(scaled):
        if found:
            _forget(variables)
        # One that depends on nothing is what a loss without labels leaves.
        if len(scaled) == 1 or objective.requires_grad:
            objective.backward(retain_graph=i + 1 < len(scaled))
        found.append([variable.value.grad for variable in variables])
    with torch.no_grad():
        distiller.optimizer.apply(distiller.joined(found), variables)
        return distiller.update_logs(*batch, loss)


def _forget(variables) -> None:
    """Drop gradients; the module's own `zero_grad` misses models inside of models."""
    for variable in variables:
        variable.value.grad = None
