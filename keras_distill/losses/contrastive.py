"""Contrastive distillation: embeddings of one sample across teacher and student."""

import math

import keras
import numpy as np
from keras import ops

from keras_distill import adapters
from keras_distill._backend import noise
from keras_distill._backend.number_checks import check_above, check_in, check_integers
from keras_distill.adapters.match import Match
from keras_distill.losses._memory_bank import MemoryBank, log_sum, negative_terms
from keras_distill.losses.distillation_loss import DistillationLoss

_PARTS = (
    "Parts of a data set, as kd.data.Samples.split, few and only return them, keep the "
    "ids of the whole."
)


@keras.saving.register_keras_serializable(package="keras_distill")
class Contrastive(DistillationLoss):
    r"""Noise-contrastive loss: whether a student's and a teacher's embedding match.

    The student should capture what distinguishes a sample from others to the teacher.
    Each model's embedding is compared with the other model's embeddings in a memory
    bank, that of the same sample and those of `negatives` others:

    .. math::

        \ell &= \mathrm{softplus}(\log(K/N) - s_+)
            + \sum_{n=1}^{K} \mathrm{softplus}(s_n - \log(K/N))

        s &= \langle u, v \rangle / \tau - \log Z

    with the temperature tau, once with u from the student and v from the teacher's
    bank, and once the other way round. Z is the mean of `exp(<u, v> / tau)` over the
    first batch times N, and is constant from then on. The negatives are drawn once a
    step for the whole batch; the source draws them for each sample, at K times the
    memory. The bank holds `2 * samples * width` numbers and is saved with the
    distiller. The embeddings of both models are trained; the loss has no second
    derivative. It needs sample ids: `kd.data.batches(..., sample_ids=True)` and
    `Distiller(..., sample_ids="sample_id")`. Under replicas every replica keeps the
    embeddings of the global batch.

    Recommended weight: 0.8 (RepDistiller's). A term with `weight="balanced"` pulls 0.3
    times as hard as the labels.

    Args:
        samples: N, above all ids: `max(ids) + 1`. A part of a data set, as from
            `kd.data.Samples.split`, keeps the ids of the whole.
        negatives: K. Default 4096, or N if that is less.
        temperature: above 0. Default 0.07.
        momentum: fraction of an embedding that the bank keeps, 0 to 1. Default 0.5.
        width: of the embeddings. Default 128.
        seed: of the negatives. Default 0.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: an argument is out of range; in `fit`, a sample id is not in
            0..N - 1: of arrays any, of other data one of the first batch. Training stops
            at such an id of a later batch.

    Example:
        >>> train, held_out = digits.train.split(0.1)
        >>> loss = kd.losses.Contrastive(samples=int(train.ids.max()) + 1)
        >>> kd.Term(loss, student="pool", teacher="pool")

    Source:
        Tian, Krishnan, Isola 2020, Contrastive representation distillation (CRD).
    """

    match = Match.CHANNELS
    recommended_weight = 0.8
    # Of 0.1, 0.3, 1 and 3, the best on held-out digits: docs/results/compare.md.
    share = 0.3
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
        check_integers(2, samples=samples)
        check_integers(1, negatives=negatives, width=width)
        check_integers(0, seed=seed)
        check_above(0, temperature=temperature)
        check_in(0, 1, momentum=momentum)
        if momentum == 1:
            raise ValueError(
                "momentum must be below 1, or the bank stays as it is; got 1."
            )
        self.samples = samples
        self.negatives = min(negatives, samples)
        self.temperature = temperature
        self.momentum = momentum
        self.width = width
        self.seed = seed

    def adapters(self, student, teacher):
        """Return an embedding for each model."""
        return (
            adapters.UnitEmbedding(self.width, name="student_embedding"),
            adapters.UnitEmbedding(self.width, name="teacher_embedding"),
        )

    def memory(self):
        """Create the bank."""
        return MemoryBank(self.samples, self.width, seed=self.seed, name="bank")

    def check_sample_ids(self, ids) -> None:
        """Check that the bank has a row for each id."""
        outside = (ids < 0) | (ids >= self.samples)
        if outside.any():
            raise ValueError(
                f"{self._range()}; got {np.unique(ids[outside])[:5].tolist()}. "
                f"Pass samples={max(self.samples, int(ids.max()) + 1)} or more, as "
                f"max(ids) + 1 of all data. {_PARTS}"
            )

    def cause_of_nan(self) -> str:
        """Return that a sample id may be outside the bank."""
        return (
            f"{self._range()}, and {self.name} is NaN on a batch with another. Pass "
            f"samples=max(ids) + 1. {_PARTS} "
        )

    def _range(self) -> str:
        return (
            f"kd.losses.Contrastive(samples={self.samples}) takes sample ids from 0 to "
            f"{self.samples - 1}"
        )

    def call(self, teacher, student, *, sample_ids, step, memory):
        """Return `(B,)` for embeddings `(B, width)`, and update the bank with them.

        The value of a sample whose id is outside the bank is NaN.
        """
        sample_ids = ops.cast(sample_ids, "int32")
        ids = ops.clip(sample_ids, 0, self.samples - 1)
        random = noise.uniform(ops.arange(self.negatives), self.seed, step)
        drawn = ops.cast(random * self.samples, "int32")
        itself = ids[:, None] == drawn[None]
        banks = [[ops.take(b, i, axis=0) for i in (ids, drawn)] for b in memory.banks]
        sides = [(student, *banks[1]), (teacher, *banks[0])]
        log_z = memory.log_z(
            lambda: [self._log_mean(*side) for side in sides], ops.shape(ids)[0]
        )
        values = sum(
            self._value(*side, itself, z) for side, z in zip(sides, log_z, strict=True)
        )
        memory.update(ids, student, teacher, self.momentum)
        return ops.where(ids == sample_ids, values, math.nan)

    def _value(self, embeddings, positives, negatives, itself, log_z):
        """Return the terms of one direction, `(B,)`."""
        shift = log_z + math.log(self.negatives / self.samples)
        positive = ops.sum(embeddings * positives, axis=-1) / self.temperature
        embeddings = embeddings / self.temperature
        others = negative_terms(embeddings, negatives, itself, shift)
        return ops.softplus(shift - positive) + others

    def _log_mean(self, embeddings, positives, negatives):
        """Return the log of the mean exponential of each sample's scores, `(B,)`."""
        positive = ops.sum(embeddings * positives, axis=-1) / self.temperature
        others = log_sum(embeddings / self.temperature, negatives)
        return ops.logaddexp(positive, others) - math.log(self.negatives + 1)
