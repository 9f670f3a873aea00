"""A memory of each sample's embeddings, and scores against it."""

import math

import numpy as np
from keras import layers, ops

from keras_distill import strategies
from keras_distill._backend.gradients import custom_gradient
from keras_distill.losses._vectors import normalize

BLOCK, LOWEST = 512, -200.0


def negative_terms(embeddings, negatives, itself, shift):
    """Return `sum_n softplus(s_n - shift)` over the negatives, `(B,)`.

    The scores s are the inner products of embeddings, `(B, D)`, and negatives, `(K, D)`;
    those that `itself`, `(B, K)`, marks as the sample are left out. Value and gradient are
    computed together, in blocks of negatives, so that memory is a few tensors `(B, 512)`.
    It has no second derivative.
    """

    @custom_gradient
    def terms(embeddings):
        values, gradients = 0.0, 0.0
        for start in range(0, negatives.shape[0], BLOCK):
            block = negatives[start : start + BLOCK]
            scores = ops.matmul(embeddings, ops.transpose(block)) - shift
            # A score this low adds nothing and has no gradient.
            scores = ops.where(itself[:, start : start + BLOCK], LOWEST, scores)
            values += ops.sum(ops.softplus(scores), axis=-1)
            gradients += ops.matmul(ops.sigmoid(scores), block)
        return values, lambda upstream: upstream[:, None] * gradients

    return terms(embeddings)


def log_sum(embeddings, negatives):
    """Return `log sum_n exp(s_n)`, computed in the same blocks, `(B,)`."""
    blocks = (negatives[x : x + BLOCK] for x in range(0, negatives.shape[0], BLOCK))
    scores = (ops.matmul(embeddings, ops.transpose(block)) for block in blocks)
    parts = [ops.logsumexp(x, axis=-1) for x in scores]
    return ops.logsumexp(ops.stack(parts, axis=-1), axis=-1)


class MemoryBank(layers.Layer):
    """The latest embeddings of every sample, of both models; random unit vectors at first."""

    def __init__(self, samples: int, width: int, seed: int = 0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.samples, self.width, self.seed = samples, width, seed

    def build(self, input_shape: tuple):
        rng = np.random.default_rng(self.seed)

        def unit_vectors(shape, dtype=None):
            vectors = rng.normal(size=shape).astype("float32")
            return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

        def weight(name, shape, initializer):
            return self.add_weight(
                shape=shape,
                initializer=initializer,
                trainable=False,
                aggregation="only_first_replica",
                name=name,
            )

        shape = self.samples, self.width
        self.banks = [weight(x, shape, unit_vectors) for x in ("student", "teacher")]
        self.constants = weight("log_z", (2,), "zeros")
        self.initialized = weight("initialized", (), "zeros")

    def log_z(self, first, count) -> list:
        """Return log Z of both directions, as estimated from the first batch.

        On that batch alone, `first` is run; it returns, for each direction, the log of the
        mean exponential of each sample's scores, `(B,)`.
        """
        means = ops.cond(
            self.initialized > 0,
            lambda: ops.zeros((count, 2)),
            lambda: ops.stop_gradient(ops.stack(first(), axis=-1)),
        )
        means = strategies.gather(means)
        size = ops.cast(ops.shape(means)[0], means.dtype)
        log_z = ops.logsumexp(means, axis=0) - ops.log(size) + math.log(self.samples)
        log_z = ops.where(self.initialized > 0, self.constants.value, log_z)
        self.constants.assign(log_z)
        self.initialized.assign(ops.ones(()))
        return [log_z[0], log_z[1]]

    def update(self, ids, student, teacher, momentum: float) -> None:
        """Move the samples' embeddings toward the new ones, over all replicas."""
        ids = strategies.gather(ids)
        for bank, new in zip(self.banks, (student, teacher), strict=True):
            new = strategies.gather(ops.stop_gradient(new))
            mixed = momentum * ops.take(bank, ids, axis=0) + (1.0 - momentum) * new
            bank.assign(ops.scatter_update(bank.value, ids[:, None], normalize(mixed)))
