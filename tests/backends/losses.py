"""Compute all losses of the contract and their gradients on the current backend.

    KERAS_BACKEND=jax python -m tests.backends.losses RESULT

RESULT gets the samples' values and the student's gradients, by row and case.
"""

import sys

import keras
import numpy as np
from keras import ops, tree

from tests.differentiation import compilers
from tests.losses.contract import ROWS, gradients


def compute(row):
    """Yield values and gradients for normal tensors, and for those after a ReLU."""
    loss = row.loss(reduction=None)

    def values_and_gradients(teacher, student):
        return gradients(loss, teacher, student)[:2]

    if keras.backend.backend() == "jax":
        # Faster than compiling each operation alone.
        values_and_gradients = compilers()["jit"](values_and_gradients)
    # Scaled, as float32 keeps few digits of a small divergence.
    normal = row.draw("teacher", seed=1, scale=3.0), row.draw(seed=2, scale=3.0)
    rectified = tree.map_structure(ops.relu, normal)
    for case, sides in (("normal", normal), ("rectified", rectified)):
        values, of_student = values_and_gradients(*sides)
        yield f"{row.name}/{case}/values", values
        for i, x in enumerate(of_student):
            yield f"{row.name}/{case}/gradient{i}", x


def main(result):
    found = {name: x for row in ROWS for name, x in compute(row)}
    np.savez(result, **{name: ops.convert_to_numpy(x) for name, x in found.items()})


if __name__ == "__main__":
    main(sys.argv[1])
