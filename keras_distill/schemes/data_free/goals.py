"""Goals: what the activations of reconstructed inputs must equal."""

from typing import NamedTuple

import numpy as np
from keras import ops


class Goal(NamedTuple):
    """Numbers that the activations of some layers must equal.

    Args:
        layers: paths; their activations are flattened and joined to `(B, n)`.
        basis: `(n, n)`, whose columns they are projected onto; None for none.
        values: `(B, n)`, what they must equal.
        weights: `(B, n)`, that sum to one over the numbers of a sample that count; the
            others have none.
    """

    layers: tuple[str, ...]
    basis: np.ndarray | None
    values: np.ndarray
    weights: np.ndarray


def of_activations(activations: dict[str, np.ndarray]) -> list[Goal]:
    """Return goals of which all activations `(B, n)` of each layer count."""
    return [
        Goal((path,), None, values, np.full_like(values, 1 / values.shape[-1]))
        for path, values in activations.items()
    ]


def errors(activations: list, basis, values, weights):
    """Return the mean squared error of each sample over the mean square of the values.

    Args:
        activations: tensors of the goal's layers.
        basis, values, weights: tensors of the goal.
    """
    count = ops.shape(values)[0]
    joined = [ops.reshape(x, (count, -1)) for x in activations]
    found = joined[0] if len(joined) == 1 else ops.concatenate(joined, axis=-1)
    found = found if basis is None else ops.matmul(found, basis)
    gaps = ops.sum(weights * ops.square(found - values), axis=-1)
    squares = ops.sum(weights * ops.square(values), axis=-1)
    return gaps / (ops.mean(squares) + 1e-6)
