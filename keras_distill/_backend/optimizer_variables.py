"""Private parts of Keras's optimizers."""

import keras


def index_of(optimizer: keras.optimizers.Optimizer, variable) -> int:
    """Return the index of a trained variable, as an optimizer's `update_step` takes it.

    Stands in for a public form of `keras.optimizers.Optimizer._get_variable_index`, which
    Keras's own optimizers call to find their momenta; no public issue asks for one.
    """
    return optimizer._get_variable_index(variable)


def copied_optimizer(optimizer: keras.optimizers.Optimizer):
    """Return an optimizer of the same arguments, without state.

    Stands in for entries of `keras.optimizers.Optimizer.get_config` for the variables
    that `exclude_from_weight_decay` leaves out, and for a learning rate that is a
    function, of which it has the name alone; no public issue asks for either.
    """
    config = optimizer.get_config()
    rate = vars(optimizer).get("_learning_rate")
    if callable(rate) and not hasattr(rate, "get_config"):
        config["learning_rate"] = rate
    copy = type(optimizer).from_config(config)
    _exclude_alike(optimizer, copy)
    return copy


def _exclude_alike(source, copy) -> None:
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if name in vars(source):
            setattr(copy, name, vars(source)[name])
    # Of a loss scale, which is an optimizer around another one.
    if hasattr(source, "inner_optimizer"):
        _exclude_alike(source.inner_optimizer, copy.inner_optimizer)
