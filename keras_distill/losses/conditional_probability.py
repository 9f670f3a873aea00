"""The probability with which one sample would pick another as its neighbor."""

import keras
from keras import ops

from keras_distill.adapters.match import Match
from keras_distill.losses._vectors import inner_products, unit_vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class ConditionalProbability(DistillationLoss):
    r"""Divergence of the neighborhoods of samples, by cosine similarity.

    The probabilities of picking j as a neighbor of i describe the geometry of the
    feature space and preserve its mutual information with any labels:

    .. math::

        \ell_i &= \mathrm{mean}_j \, p_t(j \mid i) \log \frac{p_t(j \mid i)}{p_s(j \mid i)}

        p(j \mid i) &= \frac{k_{ij}}{\sum_m k_{im}},
            \quad k_{ij} = \frac{\cos(f_i, f_j) + 1}{2}

    over the batch including i itself, as in the authors' code. Under replicas the batch
    is the global one. No adapter is needed: features of any shape compare.

    Recommended weight: 30000 (RepDistiller's for this mean, in batches of 64). The paper's
    sum over j is N times the mean: 30000 in a batch of 64 is `30000 * N / 64` in one of N,
    whatever the size of the features. `kd.suggest_weights` finds a weight for your models.

    Example:
        >>> kd.Term(kd.losses.ConditionalProbability(), student="pool", teacher="pool")

    Source:
        Passalis, Tefas 2018, Learning deep representations with probabilistic knowledge
        transfer (PKT).
    """

    compares_samples = True
    match = Match.NOTHING
    recommended_weight = 30000.0
    needs = ("mask", "teacher_mask")
    masked_scores = ("scores",)

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for features of any shape."""
        log_p = _log_probabilities(teacher, teacher_mask)
        log_q = _log_probabilities(student, mask)
        return ops.mean(ops.exp(log_p) * (log_p - log_q), axis=-1)


def _log_probabilities(features, mask):
    """Return log p(j | i), `(B, N)`."""
    cosines = inner_products(unit_vectors(features, mask))
    # Opposite vectors have a similarity of 0, whose logarithm is not finite.
    kernel = ops.maximum((cosines + 1.0) / 2.0, 1e-6)
    return ops.log(kernel) - ops.log(ops.sum(kernel, axis=-1, keepdims=True))
