"""Correlations between samples under a Gaussian kernel."""

import math

import keras
from keras import ops

from keras_distill._backend.number_checks import check_above, check_integers
from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import inner_products, unit_vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class CorrelationCongruence(DistillationLoss):
    r"""Squared distance of the correlation matrices of a batch.

    The kernel is a Gaussian of the normalized features, expanded around 0 as in the
    paper, which makes it a polynomial of their cosine c:

    .. math::

        \ell_i &= \frac{1}{N} \sum_j \left( k(c_{s,ij}) - k(c_{t,ij}) \right)^2

        k(c) &= e^{-2 \gamma} \sum_{p=0}^{\mathrm{order}} \frac{(2 \gamma)^p}{p!} \, c^p

    over the batch of N; its mean over i is the paper's `1/N^2 ||C_s - C_t||^2`. This is
    the paper's formula, not RepDistiller's, which compares neighbors in a batch. Under
    replicas the batch is the global one. No adapter is needed: any shapes compare.

    Recommended weight: 100, our own choice, as the paper's is for features of another
    scale. It is a mean over pairs of a function of cosines, for features and batches of any
    size.

    Args:
        gamma: width of the kernel, above 0. Default 0.4.
        order: of the expansion, 1 or more. Default 2.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        ValueError: `gamma` or `order` is out of range.

    Example:
        >>> kd.Term(kd.losses.CorrelationCongruence(), student="pool", teacher="pool")

    Source:
        Peng et al. 2019, Correlation congruence for knowledge distillation (CC).
    """

    compares_samples = True
    match = Match.NOTHING
    recommended_weight = 100.0
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def __init__(self, *, gamma: float = 0.4, order: int = 2, **kwargs):
        super().__init__(**kwargs)
        check_above(0, gamma=gamma)
        check_integers(1, order=order)
        self.gamma = gamma
        self.order = order

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for features of any shape."""
        gap = self._correlations(student, mask)
        gap = gap - self._correlations(teacher, teacher_mask)
        return ops.mean(ops.square(gap), axis=-1)

    def _correlations(self, features, mask):
        """Return `(B, N)`."""
        cosines = inner_products(unit_vectors(features, mask))
        total = 0.0
        # Horner's rule, without the constant of p = 0, which cancels.
        for p in range(self.order, 0, -1):
            total = (total + (2 * self.gamma) ** p / math.factorial(p)) * cosines
        return math.exp(-2 * self.gamma) * total
