"""A sample told from others, across teacher and student."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import layers, ops

from keras_distill import adapters, noise, strategies
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.pairs import normalised


@keras.saving.register_keras_serializable(package="keras_distill")
class Contrastive(DistillationLoss):
    """Whether two embeddings, one a net's, are of one sample: noise-contrastive.

    The student should know of a sample what tells it from others to the teacher. Each
    net's embedding is compared with what a bank remembers of the other net's: of the
    same sample, and of `negatives` others:

        softplus(log(K/N) - s_+) + sum_{n=1..K} softplus(s_n - log(K/N)),
        s = <u, v> / temperature - log Z,

    once with u the student's and v the teacher's remembered one, and once the other way
    round. Z, the mean of `exp(<u, v> / temperature)` over the first batch times N, stays
    as it is from then on. The negatives are drawn once a step for the whole batch; the
    source draws them for each sample, at K times the memory. The bank holds
    `2 * samples * width` numbers, and is saved with the distiller. Embeddings of both
    nets are trained. Sample ids are needed: `kd.data.batches(..., sample_ids=True)` and
    `Distiller(..., sample_ids="sample_id")`. Under replicas every replica remembers the
    global batch.

    Recommended weight: 0.8 (RepDistiller's).

    Args:
        samples: N, ids run from 0 to N - 1.
        negatives: K. Default 4096, or N where that is less.
        temperature: above 0. Default 0.07.
        momentum: share that an embedding keeps in the bank, 0 to 1. Default 0.5.
        width: of the embeddings. Default 128.
        seed: of the negatives. Default 0.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> loss = kd.losses.Contrastive(samples=len(digits.train))
        >>> kd.Term(loss, student="pool", teacher="pool")

    Source:
        Tian, Krishnan, Isola 2020, Contrastive representation distillation (CRD).
    """

    match = "channels"
    recommended_weight = 0.8
    needs = ("sample_ids", "step", "memory")
    trains_teacher_adapters = True

    def __init__(
        self,
        samples: int,
        *,
        negatives: int = 4096,
        temperature: float = 0.07,
        momentum: float = 0.5,
        width: int = 128,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if samples < 2 or negatives < 1 or not temperature > 0 or not 0 <= momentum < 1:
            raise ValueError(
                "samples is 2 or more, negatives 1 or more, temperature above 0 and "
                "momentum from 0 to below 1; got "
                f"{samples}, {negatives}, {temperature} and {momentum}."
            )
        self.samples = samples
        self.negatives = min(negatives, samples)
        self.temperature = temperature
        self.momentum = momentum
        self.width = width
        self.seed = seed

    def adapters(self, student, teacher):
        """Give an embedding for each net."""
        return (
            adapters.UnitEmbedding(self.width, name="student_embedding"),
            adapters.UnitEmbedding(self.width, name="teacher_embedding"),
        )

    def memory(self):
        """Make the bank."""
        return MemoryBank(self.samples, self.width, seed=self.seed, name="bank")

    def call(self, teacher, student, *, sample_ids, step, memory):
        """Give `(B,)` for embeddings `(B, width)`; the bank takes them up."""
        ids = ops.cast(sample_ids, "int32")
        random = noise.uniform(ops.arange(self.negatives), self.seed, step)
        drawn = ops.cast(random * self.samples, "int32")
        own, known = (ops.take(bank, ids, axis=0) for bank in memory.banks)
        others, known_others = (ops.take(bank, drawn, axis=0) for bank in memory.banks)
        scores = [
            self._scores(student, known, known_others),
            self._scores(teacher, own, others),
        ]
        log_z = memory.log_z(scores, self.samples)
        itself = ops.cast(ids[:, None] == drawn[None], student.dtype)
        values = sum(
            self._value(same - z, different - z, itself)
            for (same, different), z in zip(scores, log_z, strict=True)
        )
        memory.take_up(ids, student, teacher, self.momentum)
        return values

    def _scores(self, embeddings, same, different):
        """Give the scores with the same sample, `(B,)`, and with others, `(B, K)`."""
        own = ops.sum(embeddings * ops.stop_gradient(same), axis=-1)
        others = ops.matmul(embeddings, ops.transpose(ops.stop_gradient(different)))
        return own / self.temperature, others / self.temperature

    def _value(self, same, different, itself):
        chance = math.log(self.negatives / self.samples)
        others = (1.0 - itself) * ops.softplus(different - chance)
        return ops.softplus(chance - same) + ops.sum(others, axis=-1)

    def get_config(self) -> dict:
        """Give the arguments."""
        names = ("samples", "negatives", "temperature", "momentum", "width", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


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

    def log_z(self, scores, samples: int) -> list:
        """Give the logarithm of Z of both directions, that of the first batch."""
        first = []
        for same, different in scores:
            every = ops.concatenate([same[:, None], different], axis=-1)
            every = strategies.gather(ops.stop_gradient(every))
            count = ops.cast(ops.size(every), every.dtype)
            first.append(ops.logsumexp(every) - ops.log(count) + math.log(samples))
        found = ops.where(self.known > 0, self.constants.value, ops.stack(first))
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
