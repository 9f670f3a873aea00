"""The named parts of the loss: a replica's part of each mean, and their running means."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill import strategies
from keras_distill._backend.keras_trainer import LowerIsBetter
from keras_distill.losses._masking import of_both
from keras_distill.taps import mask_of


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


def label_weights(y, y_pred, sample_weight, loss, count, mean_count):
    """Return sample weights by which the labels' means are over all replicas' tokens.

    Keras's mean is over a replica's own valid tokens, those that neither a mask nor
    `ignore_class` leaves out. With one replica the weights are returned as they are.

    Args:
        y, y_pred, sample_weight: of this replica.
        loss: the compiled loss, of one output or of each.
        count, mean_count: as in `replica_parts`.
    """
    if strategies.replica_count() == 1:
        return sample_weight
    outputs = keras.tree.flatten(y_pred)
    # One array is that of every exit of a `SelfDistiller`.
    labels = keras.tree.flatten(y) if keras.tree.is_nested(y) else [y] * len(outputs)
    losses, weights = (
        x * len(outputs) if len(x) == 1 else x
        for x in (keras.tree.flatten(loss), keras.tree.flatten(sample_weight))
    )
    if {len(labels), len(losses), len(weights)} != {len(outputs)}:
        return sample_weight
    masks = list(map(_valid, labels, outputs, losses))
    if all(mask is None for mask in masks):
        return sample_weight
    samples = ops.divide(count, mean_count)
    parts = [
        _weight(weight, output, mask, samples)
        for weight, output, mask in zip(weights, outputs, masks, strict=True)
    ]
    return keras.tree.pack_sequence_as(y_pred, parts)


def _valid(labels, output, loss):
    """Return the mask of the entries that a mean over labels is of, None for all."""
    if getattr(loss, "reduction", "mean") not in ("mean", "sum_over_batch_size"):
        return None
    mask, ignored = mask_of(output), getattr(loss, "ignore_class", None)
    if ignored is None:
        return mask
    if len(labels.shape) == len(output.shape):
        labels = ops.squeeze(labels, axis=-1)
    return of_both(mask, ops.not_equal(labels, ops.cast(ignored, labels.dtype)))


def _weight(weight, output, mask, samples):
    """Weigh an output by this replica's part of the valid entries over its samples'."""
    if weight is None:
        like = output[..., 0] if mask is None else mask
        weight = ops.ones_like(like, dtype="float32")
    if mask is None:
        return weight
    valid = ops.sum(ops.cast(mask, "float32"))
    part = ops.divide_no_nan(valid, strategies.mean_count(valid))
    return ops.cast(weight, "float32") * part / ops.cast(samples, "float32")


class PartMeans(LowerIsBetter):
    """Running means of the parts of the loss over the same samples.

    A `keras.metrics.Mean` for each would cost a small step more than its arithmetic.

    Args:
        names: of the parts.
    """

    def __init__(self, names: Sequence[str], name: str = "parts"):
        super().__init__(names, name)
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
