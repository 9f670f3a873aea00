"""Private parts of Keras's optimizers."""

import keras


def index_of(optimizer: keras.optimizers.Optimizer, variable) -> int:
    """Return the index of a trained variable, as an optimizer's `update_step` takes it.

    Stands in for a public form of `keras.optimizers.Optimizer._get_variable_index`, which
    Keras's own optimizers call to find their momenta; no public issue asks for one.
    """
    return optimizer._get_variable_index(variable)
