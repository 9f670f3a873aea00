"""What is remembered of each sample, and how others of it are told apart."""

from __future__ import annotations

import math

import numpy as np
from keras import layers, ops

from keras_distill import strategies
from keras_distill.losses._pairs import normalised

BLOCK, LOWEST = 512, -200.0


def other_samples(embeddings, different, itself, shift):
    """Give `sum_n softplus(s_n - shift)` over other samples, `(B,)`.

    Value and slope are found at once and in blocks of others, so that memory is that of
    some `(B, 512)`. It has no second derivative.

    Args:
        embeddings: `(B, D)`; a score is the inner product with a remembered vector.
        different: remembered vectors, `(K, D)`.
        itself: true where such a vector is of the sample itself, `(B, K)`.
        shift: of the scores, a number.
    """

    @ops.custom_gradient
    def told_apart(embeddings):
        values, slopes = 0.0, 0.0
        for start in range(0, different.shape[0], BLOCK):
            block = different[start : start + BLOCK]
            scores = ops.matmul(embeddings, ops.transpose(block)) - shift
            # So low a score adds nothing and has no slope.
            scores = ops.where(itself[:, start : start + BLOCK], LOWEST, scores)
            values += ops.sum(ops.softplus(scores), axis=-1)
            slopes += ops.matmul(ops.sigmoid(scores), block)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return upstream[:, None] * slopes

        return values, gradient

    return told_apart(embeddings)


def log_sum(embeddings, different):
    """Give `log sum_n exp(s_n)` in the same blocks, `(B,)`."""
    blocks = range(0, different.shape[0], BLOCK)
    parts = [
        ops.logsumexp(
            ops.matmul(embeddings, ops.transpose(different[x : x + BLOCK])), axis=-1
        )
        for x in blocks
    ]
    return ops.logsumexp(ops.stack(parts, axis=-1), axis=-1)


class MemoryBank(layers.Layer):
    """What was last seen of each sample's embeddings, the student's and the teacher's.

    Args:
        samples: N.
        width: of the embeddings.
        seed: of the random unit vectors that it starts with.
    """

    def __init__(self, samples: int, width: int, seed: int = 0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.samples, self.width, self.seed = samples, width, seed

    def build(self, input_shape: tuple):
        """Make both banks and the constants of both directions."""
        rng = np.random.default_rng(self.seed)

        def unit_vectors(shape, dtype=None):
            drawn = rng.normal(size=shape).astype("float32")
            return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)

        def weight(name, shape, initializer):
            return self.add_weight(
                shape=shape,
                initializer=initializer,
                trainable=False,
                aggregation="only_first_replica",
                name=name,
            )

        shape = self.samples, self.width
        self.banks = [
            weight(name, shape, unit_vectors) for name in ("student", "teacher")
        ]
        self.constants = weight("log_z", (2,), "zeros")
        self.known = weight("known", (), "zeros")

    def log_z(self, first, count) -> list:
        """Give log Z of both directions, that of the first batch.

        Args:
            first: gives for both directions the log of the mean exponential of each
                sample's scores, `(B,)` each. Only the first batch runs it.
            count: B.
        """
        means = ops.cond(
            self.known > 0,
            lambda: ops.zeros((count, 2)),
            lambda: ops.stop_gradient(ops.stack(first(), axis=-1)),
        )
        means = strategies.gather(means)
        size = ops.cast(ops.shape(means)[0], means.dtype)
        found = ops.logsumexp(means, axis=0) - ops.log(size) + math.log(self.samples)
        found = ops.where(self.known > 0, self.constants.value, found)
        self.constants.assign(found)
        self.known.assign(ops.ones(()))
        return [found[0], found[1]]

    def take_up(self, ids, student, teacher, momentum: float) -> None:
        """Move the samples' embeddings to the new ones, those of all replicas."""
        ids = strategies.gather(ids)
        for bank, new in zip(self.banks, (student, teacher), strict=True):
            new = strategies.gather(ops.stop_gradient(new))
            mixed = momentum * ops.take(bank, ids, axis=0) + (1.0 - momentum) * new
            bank.assign(ops.scatter_update(bank.value, ids[:, None], normalised(mixed)))
