"""Random numbers that seed, step and place determine, without a state."""

from __future__ import annotations

from keras import ops


def uniform(places, seed: int, step):
    """Draw a number in `[0, 1)` for each place, the same wherever it is computed.

    Backends, compilers and replicas have generators of their own that agree on nothing.
    This is a mixing of integers, so a run that goes on from a checkpoint, on another
    backend, compiled or shared out over replicas, draws what it would have drawn.

    Args:
        places: whole numbers, of any shape, different where numbers are to differ.
        seed: a whole number.
        step: of the optimiser, a number or a tensor.

    Source:
        Wellons 2018, Prospecting for hash functions (its best two-round constants).
    """
    key = _mixed(_mixed(ops.cast(seed, "int32")) + ops.cast(step, "int32"))
    mixed = _mixed(ops.bitwise_xor(_mixed(ops.cast(places, "int32")), key))
    return ops.cast(ops.bitwise_and(mixed, 0xFFFFFF), "float32") / 2**24


def _mixed(x):
    """Turn each int32 into another, near ones into far ones; products wrap around."""
    x = _folded(x, 16) * 0x21F0AAAD
    # 0xD35A2D97 as a signed number.
    x = _folded(x, 15) * (0xD35A2D97 - 2**32)
    return _folded(x, 15)


def _folded(x, bits):
    """Give `x ^ (x >> bits)`, the shift without the sign."""
    shifted = ops.bitwise_and(ops.bitwise_right_shift(x, bits), 2 ** (32 - bits) - 1)
    return ops.bitwise_xor(x, shifted)
