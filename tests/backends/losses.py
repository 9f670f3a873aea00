"""Compute all losses of the contract and their gradients on whichever backend runs.

    KERAS_BACKEND=jax python -m tests.backends.losses RESULT

RESULT gets, by row and case, the values of the samples and the student's gradients.
"""

import sys

import keras
import numpy as np
from keras import ops, tree

from tests.differentiation import compilers
from tests.losses.contract import ROWS, gradients


def compute(row):
    """Give values and slopes for normal tensors, and for such as a ReLU leaves."""
    loss = row.loss(reduction=None)

    def values_and_slopes(teacher, student):
        return gradients(loss, teacher, student)[:2]

    if keras.backend.backend() == "jax":
        # Faster than to compile each operation alone.
        values_and_slopes = compilers()["jit"](values_and_slopes)
    # Small divergences are differences of which float32 keeps few digits.
    normal = row.draw("teacher", seed=1, scale=3.0), row.draw(seed=2, scale=3.0)
    rectified = tree.map_structure(ops.relu, normal)
    for case, sides in (("normal", normal), ("rectified", rectified)):
        values, slopes = values_and_slopes(*sides)
        yield f"{row.name}/{case}/values", values
        for place, slope in enumerate(slopes):
            yield f"{row.name}/{case}/slope{place}", slope


def main(result):
    found = {name: x for row in ROWS for name, x in compute(row)}
    np.savez(result, **{name: ops.convert_to_numpy(x) for name, x in found.items()})


if __name__ == "__main__":
    main(sys.argv[1])
