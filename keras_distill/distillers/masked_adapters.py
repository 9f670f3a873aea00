"""Adapters of sequences with a mask, which leave masked steps out or are refused."""

import warnings
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_distill._backend.keras_layers import with_mask
from keras_distill.losses._masking import without_masked

# The length at which an adapter is tried where the batch's is not known.
_STEPS = 4


def adapted(adapter, tensor, mask, training: bool):
    """Return what an adapter makes of a tensor; a sequence has zeros at masked steps."""
    if adapter is None:
        return tensor
    return adapter(_masked(adapter, tensor, mask), training=training)


def counts_padding(adapter, shape: Sequence) -> bool:
    """Whether an adapter makes another value of a sequence that is padded with a mask.

    It is tried, in inference form, on a sequence whose second half is masked, and on the
    first half alone. One that takes no other length, and drops the steps, must make
    another value of the mask.

    Args:
        adapter: a built layer, or None.
        shape: of a tensor, batch first. Of others than sequences, `(B, L, D)`, whose
            steps an adapter drops, it must support masks.
    """
    if adapter is None or len(shape) < 3:
        return False
    if len(shape) > 3:
        drops = len(adapter_shape(adapter, shape)) < 3
        return drops and not adapter.supports_masking
    steps = max(shape[1] or _STEPS, 2)
    features = np.abs(np.random.default_rng(0).normal(size=(2, steps, shape[2] or 1)))
    # Of both signs, as zeros are the largest of some and the least of others.
    features = features * [[[1.0]], [[-1.0]]]
    with warnings.catch_warnings(), keras.StatelessScope():
        warnings.simplefilter("ignore")
        return _differs(adapter, features, np.arange(steps) < steps // 2)


def check_counts_no_padding(name: str, adapter, mask, counts: bool) -> None:
    """Check that no adapter of a sequence with a mask counts padding."""
    if counts and mask is not None and len(mask.shape) == 2:
        raise ValueError(
            f"Term '{name}': its adapter '{adapter.name}' makes another value of a "
            "sequence that is padded, and the sequence has a mask: masked steps, which "
            "are zeros, would count. Use keras.layers.GlobalAveragePooling1D() for the "
            "mean over steps, or a layer whose call takes `mask` and leaves them out, "
            "behind layers that pass it on (supports_masking = True)."
        )


def adapter_shape(adapter, shape):
    """Return the shape of what an adapter makes of a shape, or of a list of them."""
    if adapter is None:
        return shape
    if type(adapter).compute_output_shape is not keras.Layer.compute_output_shape:
        return adapter.compute_output_shape(shape)
    return tuple(adapter.compute_output_spec(keras.KerasTensor(shape)).shape)


def build_adapter(adapter, shape) -> None:
    """Build an adapter, and the layers inside of one without a `build`, if it is not."""
    if adapter is None or adapter.built:
        return
    if type(adapter).build is keras.Layer.build and isinstance(shape, tuple):
        adapter(keras.KerasTensor(shape, adapter.compute_dtype))
    else:
        adapter.build(shape)


def _masked(adapter, tensor, mask):
    """Return what an adapter takes of a sequence: zeros at masked steps, and the mask."""
    if mask is None or len(mask.shape) != 2 or len(tensor.shape) < 3:
        return tensor
    # Keras's own cast would lose the mask.
    tensor = ops.cast(tensor, adapter.compute_dtype)
    return with_mask(without_masked(tensor, mask), mask)


def _differs(adapter, features, valid) -> bool:
    """Whether an adapter's value at valid steps changes with those that are masked."""
    half = int(np.sum(valid))

    def run(features, mask):
        mask = ops.convert_to_tensor(np.broadcast_to(mask, features.shape[:2]))
        features = ops.convert_to_tensor(features.astype("float32"))
        found = adapted(adapter, features, mask, training=False)
        return ops.convert_to_numpy(ops.cast(found, "float32"))

    try:
        padded = run(features, valid)
        keeps = padded.ndim > 2 and padded.shape[1] == len(valid)
        padded = padded[:, :half] if keeps else padded
    except Exception:
        # Adapters that refuse masks say so in the step.
        return False
    try:
        expected = run(features[:, :half], valid[:half])
    except Exception:
        zeros = features * valid[:, None]
        return not keeps and _are_close(padded, run(zeros, valid | True))
    return padded.shape != expected.shape or not _are_close(padded, expected)


def _are_close(found, expected) -> bool:
    """Whether arrays are equal in half precision; padding changes them by far more."""
    return bool(np.abs(found - expected).max() <= 0.02 * np.abs(expected).max())
