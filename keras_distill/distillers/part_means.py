"""Running means of the loss and its parts, in one variable."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops


class PartMeans(keras.Metric):
    """Means of several numbers over the same samples.

    A `keras.metrics.Mean` each would cost a small step more than its arithmetic.

    Args:
        names: of the numbers.
    """

    def __init__(self, names: Sequence[str], name: str = "parts"):
        super().__init__(name=name, dtype="float32")
        self.names = list(names)
        # Sums over samples, and last their number.
        self.totals = self.add_variable(
            shape=(len(self.names) + 1,), initializer="zeros", name="totals"
        )

    def update_state(self, values: dict, count) -> None:
        """Add a step.

        Args:
            values: means over the step's samples, by name; a name may be left out.
            count: of the samples.
        """
        row = [ops.cast(values.get(name, 0.0), "float32") for name in self.names]
        row = ops.stack([*(ops.reshape(value, ()) for value in row), 1.0])
        self.totals.assign_add(row * ops.cast(count, "float32"))

    def result(self):
        """Give the means, in the order of the names."""
        totals = ops.convert_to_tensor(self.totals)
        return totals[:-1] / ops.maximum(totals[-1], 1e-30)

    def by_name(self) -> dict:
        """Give the means by name."""
        return dict(zip(self.names, ops.unstack(self.result()), strict=True))
