"""Stateless random numbers, equal on every backend, compiler and replica."""

from keras import ops


def uniform(indices, seed: int, step):
    """Draw a number in `[0, 1)` for each index, the same wherever it is computed.

    The generators of backends, compilers and replicas draw different numbers from one
    seed. These come from an integer hash, so that a run draws the same ones if it is
    resumed from a checkpoint, compiled, distributed or moved to another backend.

    Args:
        indices: integers of any shape; equal indices draw equal numbers.
        seed: an integer.
        step: step of the optimizer, a number or a tensor.

    Source:
        Wellons 2018, Prospecting for hash functions (its best two-round constants).
    """
    key = _hash(_hash(ops.cast(seed, "int32")) + ops.cast(step, "int32"))
    bits = _hash(ops.bitwise_xor(_hash(ops.cast(indices, "int32")), key))
    return ops.cast(ops.bitwise_and(bits, 0xFFFFFF), "float32") / 2**24


def _hash(x):
    """Hash each int32; products wrap around."""
    x = _xor_shift(x, 16) * 0x21F0AAAD
    # 0xD35A2D97 as a signed number.
    x = _xor_shift(x, 15) * (0xD35A2D97 - 2**32)
    return _xor_shift(x, 15)


def _xor_shift(x, bits):
    """Return `x ^ (x >> bits)` with a logical shift."""
    shifted = ops.bitwise_and(ops.bitwise_right_shift(x, bits), 2 ** (32 - bits) - 1)
    return ops.bitwise_xor(x, shifted)
