"""Correlations between samples under a Gaussian kernel."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._pairs import everyone, normalised, products, vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class CorrelationCongruence(DistillationLoss):
    """Squared distance of the correlation matrices of a batch.

    The kernel is a Gaussian of the normalised features, expanded around 0 as in the
    paper, so that it is a polynomial of their cosine c:

        k(c) = sum_{p=0..order} exp(-2 gamma) (2 gamma)^p / p! * c^p
        value_i = 1/N * sum_j (k(c_s,ij) - k(c_t,ij))^2

    over the batch of N; its mean over i is the paper's `1/N^2 ||C_s - C_t||^2`. This is
    the paper's formula, not that of RepDistiller, which compares neighbours of a batch.
    Under replicas the batch is the global one. No adapter: any shapes compare.

    Recommended weight: 100, our own choice, as the paper's is for features of another
    scale.

    Args:
        gamma: width of the kernel, above 0. Default 0.4.
        order: of the expansion, 1 or more. Default 2.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: gamma or order out of range.

    Example:
        >>> kd.Term(kd.losses.CorrelationCongruence(), student="pool", teacher="pool")

    Source:
        Peng et al. 2019, Correlation congruence for knowledge distillation (CC).
    """

    match = Match.NOTHING
    recommended_weight = 100.0

    def __init__(self, *, gamma: float = 0.4, order: int = 2, **kwargs):
        super().__init__(**kwargs)
        if not gamma > 0 or order < 1:
            raise ValueError(
                "gamma is above 0 and order is 1 or more, as else nothing is compared; "
                f"got {gamma} and {order}."
            )
        self.gamma = gamma
        self.order = order

    def call(self, teacher, student):
        """Give `(B,)` for features of any shape."""
        gap = self._correlations(student) - self._correlations(teacher)
        return ops.mean(ops.square(gap), axis=-1)

    def _correlations(self, features):
        """Give `(B, N)`."""
        own = normalised(vectors(features))
        cosine = products(own, everyone(own))
        # Horner's rule; the constant of p = 0 is in both nets and left out.
        factors = [
            (2 * self.gamma) ** p / math.factorial(p) for p in range(1, self.order + 1)
        ]
        total = 0.0
        for factor in reversed(factors):
            total = (total + factor) * cosine
        return math.exp(-2 * self.gamma) * total

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "gamma": self.gamma, "order": self.order}
