"""A sample told from others, across teacher and student."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_distill import adapters
from keras_distill._backend import noise
from keras_distill.adapters.match import Match
from keras_distill.losses._memory_bank import MemoryBank, log_sum, other_samples
from keras_distill.losses.distillation_loss import DistillationLoss


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
    nets are trained; the loss has no second derivative. Sample ids are needed:
    `kd.data.batches(..., sample_ids=True)` and `Distiller(..., sample_ids="sample_id")`.
    Under replicas every replica remembers the global batch.

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

    match = Match.CHANNELS
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
        itself = ids[:, None] == drawn[None]
        sides = [(student, known, known_others), (teacher, own, others)]
        log_z = memory.log_z(
            lambda: [self._log_mean(*side) for side in sides], ops.shape(ids)[0]
        )
        values = sum(
            self._value(*side, itself, z) for side, z in zip(sides, log_z, strict=True)
        )
        memory.take_up(ids, student, teacher, self.momentum)
        return values

    def _value(self, embeddings, same, different, itself, log_z):
        """Give the terms of one direction, `(B,)`."""
        shift = log_z + math.log(self.negatives / self.samples)
        own = ops.sum(embeddings * same, axis=-1) / self.temperature
        others = other_samples(embeddings / self.temperature, different, itself, shift)
        return ops.softplus(shift - own) + others

    def _log_mean(self, embeddings, same, different):
        """Give the log of the mean exponential of each sample's scores, `(B,)`."""
        own = ops.sum(embeddings * same, axis=-1) / self.temperature
        others = log_sum(embeddings / self.temperature, different)
        return ops.logaddexp(own, others) - math.log(self.negatives + 1)

    def get_config(self) -> dict:
        """Give the arguments."""
        names = ("samples", "negatives", "temperature", "momentum", "width", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
