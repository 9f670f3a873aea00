"""How a loss's values become a number: their shape, weights, masks and reduction."""

import keras
from keras import ops

from keras_distill import strategies
from keras_distill.losses._masking import first_of, without_masked


def reduced(loss, values, sample_weight, mask):
    """Return the values of a loss, weighted and reduced as it says, over valid entries.

    Args:
        loss: whose `name`, `reduction` and `dtype` apply.
        values: `(B,)`, or `(B, L)`.
        sample_weight: of samples or tokens, or None.
        mask: of the values, or None.
    """
    # An infinite value times 0 is not 0.
    values = without_masked(values, mask)
    weight = _combine(values, sample_weight, mask, loss.reduction)
    # A sum over the batch may be above float16's largest number.
    wide = keras.backend.result_type(loss.dtype, "float32")
    reduce = _Reduction(loss.name, reduction=loss.reduction, dtype=wide)
    return ops.cast(reduce(values, values, weight), loss.dtype)


def check_values(name: str, values, student) -> None:
    """Check that a loss returned one value per sample, or per token or pixel."""
    shape, features = tuple(values.shape), tuple(first_of(student).shape)
    # A size that is known where the batch's is not is none of the batch.
    agree = not shape or shape[0] in (None, features[0])
    rest = zip(shape[1:], features[1:], strict=False)
    agree &= all(a == b or None in (a, b) for a, b in rest)
    if not agree or not 1 <= len(shape) <= max(1, len(features) - 1):
        raise ValueError(
            f"The loss '{name}' returned values of the shape {shape} for tensors "
            f"{features}: its `call` must return one value per sample, (B,), or one per "
            "token, (B, L), so that sample weights, masks and replicas count right. "
            "Reduce the last axes only: ops.mean(values, axis=-1), for example."
        )


class _Reduction(keras.losses.Loss):
    """Keras's own reduction, including replica scaling, of values already computed."""

    def call(self, y_true, y_pred):
        return y_pred


def _combine(values, sample_weight, mask, reduction):
    """Multiply sample weights and a mask, expanded to the rank of the values."""
    rank = len(values.shape)
    weight = None
    if sample_weight is not None:
        weight = ops.cast(ops.convert_to_tensor(sample_weight), values.dtype)
        while len(weight.shape) > rank:
            weight = ops.mean(weight, axis=-1)
        weight = _expanded(weight, rank)
    if mask is not None:
        wide = keras.backend.result_type(values.dtype, "float32")
        mask = ops.cast(mask, wide)
        if reduction in ("sum_over_batch_size", "mean"):
            mask = _scaled(mask)
        mask = _expanded(ops.cast(mask, values.dtype), rank)
        weight = mask if weight is None else weight * mask
    return weight


def _scaled(mask):
    """Scale valid entries up to the weight of all, as Keras does, over all replicas.

    Entries of a sample, L, may differ between replicas. A replica's mean over its B * L
    is later weighted by its part of the samples, B over their mean number.
    """
    rows, size = ops.shape(mask)[0], ops.size(mask)
    counts = ops.stack([ops.cast(rows, mask.dtype), ops.sum(mask)])
    mean_rows, valid = ops.unstack(strategies.mean_count(counts))
    entries = ops.cast(size, mask.dtype) / ops.cast(ops.maximum(rows, 1), mask.dtype)
    return ops.divide_no_nan(mask * entries * mean_rows, valid)


def _expanded(tensor, rank: int):
    while len(tensor.shape) < rank:
        tensor = ops.expand_dims(tensor, axis=-1)
    return tensor
