"""The named parts of the loss: a replica's part of each mean, and their running means."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill import strategies


def replica_parts(means: dict, losses: dict, count, mean_count) -> dict:
    """Turn means over one replica's samples into its parts of the global means.

    Keras weighs each replica's mean alike, and so each sample of a smaller one more.

    Args:
        means: of the losses over this replica's samples, by name.
        losses: that computed them, by name; a sum over samples stays as it is.
        count: samples of this replica.
        mean_count: what `kd.strategies.mean_count` returns for it.
    """
    if count is mean_count:
        return means
    factor = ops.divide(count, mean_count)
    return {
        name: mean if _is_sum(losses[name]) else ops.cast(mean, "float32") * factor
        for name, mean in means.items()
    }


def _is_sum(loss) -> bool:
    losses = keras.tree.flatten(loss)
    return all(getattr(part, "reduction", None) == "sum" for part in losses)


class PartMeans(keras.Metric):
    """Running means of the parts of the loss over the same samples.

    A `keras.metrics.Mean` for each would cost a small step more than its arithmetic.

    Args:
        names: of the parts.
    """

    def __init__(self, names: Sequence[str], name: str = "parts"):
        super().__init__(name=name, dtype="float32")
        self.names = list(names)
        # Sums over samples, and last their number.
        self.totals = self.add_variable(
            shape=(len(self.names) + 1,), initializer="zeros", name="totals"
        )

    def update_state(self, parts: dict, mean_count) -> None:
        """Add a step.

        Args:
            parts: of this replica, which add up to the means over all; a name may be
                left out.
            mean_count: mean number of samples per replica.
        """
        row = [ops.cast(parts.get(name, 0.0), "float32") for name in self.names]
        row = ops.stack([ops.reshape(value, ()) for value in row])
        # The parts of R replicas are means over R times the mean count of samples.
        sums = row * strategies.replica_count()
        self.totals.assign_add(ops.append(sums, 1.0) * ops.cast(mean_count, "float32"))

    def result(self):
        """Return the means, in the order of the names."""
        totals = ops.convert_to_tensor(self.totals)
        return totals[:-1] / ops.maximum(totals[-1], 1e-30)

    def by_name(self) -> dict:
        """Return the means by name."""
        return dict(zip(self.names, ops.unstack(self.result()), strict=True))
