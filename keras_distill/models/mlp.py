"""A multilayer perceptron."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_distill._backend.number_checks import check_above, check_in, check_integers


def mlp(
    input_shape: Sequence[int],
    classes: int,
    *,
    units: Sequence[int] = (800, 800),
    dropout: float = 0.0,
    max_norm: float | None = None,
    name: str = "mlp",
) -> keras.Model:
    """Create a perceptron with ReLU hidden layers, as in Hinton's MNIST experiment.

    Layers: `flatten`, `hidden1`, `dropout1`, `hidden2`, ..., `logits`.

    Args:
        input_shape: shape of one sample, `(H, W, C)` or `(D,)`.
        classes: number of logits.
        units: number of units of each hidden layer. Default 800 and 800.
        dropout: dropout rate after each hidden layer. Default 0, no dropout layers.
        max_norm: upper bound on the norm of each hidden unit's incoming weights.
            Default: none.
        name: model name.

    Returns:
        A functional `keras.Model` from `input_shape` to logits `(B, classes)`.

    Example:
        >>> teacher = kd.models.mlp((28, 28, 1), 10, units=(1200, 1200), dropout=0.25)
    """
    check_integers(1, classes=classes)
    check_in(0, dropout=dropout)
    if max_norm is not None:
        check_above(0, max_norm=max_norm)
    inputs = keras.Input(input_shape)
    x = layers.Flatten(name="flatten")(inputs)
    for i, width in enumerate(units, start=1):
        constraint = keras.constraints.MaxNorm(max_norm) if max_norm else None
        dense = layers.Dense(
            width, "relu", kernel_constraint=constraint, name=f"hidden{i}"
        )
        x = dense(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout{i}")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)
