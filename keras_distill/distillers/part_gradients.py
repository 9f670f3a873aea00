"""How hard each part of the loss pulls at the student's weights, and in which direction."""

import dataclasses
from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import ops

from keras_distill._backend.variable_gradients import by_variables

LABELS = "label_loss"


@dataclasses.dataclass(frozen=True)
class PartGradients:
    """Gradients of the parts of the loss by the student's trainable weights.

    Args:
        values: of the parts, before their weights, by name.
        norms: of their gradients, by name.
        cosines: between the gradients of two parts, by the pair of their names.
    """

    values: dict[str, float]
    norms: dict[str, float]
    cosines: dict[tuple[str, str], float]

    def cosine(self, name: str, other: str = LABELS) -> float | None:
        """Return the cosine between two parts, None if one is missing."""
        return self.cosines.get((name, other))


def measure(distiller, batches: Iterable) -> PartGradients:
    """Measure values and gradients of the parts over batches, and return their means.

    The student runs in training form, the teacher as in a step. No weight, state or seed
    changes. With several replicas the batch is taken as a whole.

    Args:
        distiller: compiled, whose adapters are built.
        batches: tuples `(x, y, sample_weight)` as a step takes them.
    """
    found = [_of_batch(distiller, batch) for batch in batches]
    names = list(found[0].norms)
    pairs = [(a, b) for a in names for b in names]
    return PartGradients(
        {name: float(np.mean([x.values[name] for x in found])) for name in names},
        {name: float(np.mean([x.norms[name] for x in found])) for name in names},
        {pair: float(np.mean([x.cosines[pair] for x in found])) for pair in pairs},
    )


def _of_batch(distiller, data) -> PartGradients:
    def before():
        distiller.advance_schedules()
        x, y, weights = distiller.enter(keras.tree.map_structure(_tensor, data))
        return x, y, weights, distiller.knowledge_of(x, y)

    # Of half precision, gradients as small as those of a mean would be 0.
    scale = distiller.optimizer.scale_loss(ops.ones(()))

    def parts(known):
        loss = distiller.run_student(*known)
        return {
            name: ops.cast(x, scale.dtype) * scale for name, x in loss.parts.items()
        }

    variables = distiller.student.trainable_variables
    regularized = [v for v in distiller.trainable_variables if v.regularizer]
    scalars, gradients = by_variables(before, parts, variables, regularized)
    scale = float(ops.convert_to_numpy(scale))
    names = [name for name in distiller.part_names() if name in scalars]
    products = _products([gradients[name] for name in names], variables) / scale**2
    norms = np.sqrt(np.diag(products))
    cosines = products / np.maximum(np.outer(norms, norms), 1e-30)
    values = [float(ops.convert_to_numpy(scalars[name])) / scale for name in names]
    return PartGradients(
        dict(zip(names, values, strict=True)),
        {name: float(norm) for name, norm in zip(names, norms, strict=True)},
        {
            (a, b): float(cosines[i, j])
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        },
    )


def _products(gradients: Sequence[Sequence], variables: Sequence) -> np.ndarray:
    """Return the inner products of all pairs of gradients, `(N, N)` in float64."""
    products = np.zeros((len(gradients), len(gradients)))
    for parts, variable in zip(zip(*gradients, strict=True), variables, strict=True):
        size = int(np.prod(variable.shape))
        rows = [
            ops.zeros((size,))
            if part is None
            else ops.reshape(ops.cast(part, "float32"), (size,))
            for part in parts
        ]
        rows = ops.stack(rows)
        products += ops.convert_to_numpy(ops.matmul(rows, ops.transpose(rows)))
    return products


def _tensor(leaf):
    return None if leaf is None else ops.convert_to_tensor(leaf)
