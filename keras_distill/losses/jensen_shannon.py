"""Jensen-Shannon divergence of the student's and the teacher's prediction."""

import keras
import numpy as np
from keras import ops

from keras_distill.losses import _close
from keras_distill.losses.divergence import Divergence
from keras_distill.losses.temperature import HIGHEST
from keras_distill.targets.target import LOG_ZERO


@keras.saving.register_keras_serializable(package="keras_distill")
class JensenShannon(Divergence):
    r"""Mean divergence of both softened predictions from the mean of the two.

    It is symmetric and bounded by T^2 log 2, so that single samples on which the models
    differ widely do not dominate a batch:

    .. math::

        \ell = \frac{T^2}{2} \left( \mathrm{KL}(p \,\|\, m) + \mathrm{KL}(q \,\|\, m) \right),
            \quad m = \frac{p + q}{2}

    Recommended weight: 1.0. Near the teacher it is a quarter of `SoftTarget`.

    Args:
        temperature, target, name, reduction, dtype: as in `SoftTarget`.

    Example:
        >>> kd.losses.JensenShannon(2.0)(teacher_logits, student_logits)

    Source:
        Agarwal et al. 2024, On-policy distillation of language models (GKD); Lin 1991,
        Divergence measures based on the Shannon entropy.
    """

    masked_scores = ("log_scores",)
    highest_temperature = HIGHEST

    def between(self, log_p, log_q):
        """Return the divergence, 0 to log 2."""
        log_p, log_q = (ops.maximum(x, LOG_ZERO) for x in (log_p, log_q))
        log_m = ops.logaddexp(log_p, log_q) - np.log(2.0)
        terms = ops.exp(log_p) * (log_p - log_m) + ops.exp(log_q) * (log_q - log_m)
        return 0.5 * ops.sum(terms, axis=-1)

    def between_close(self, log_p, log_q):
        """Return the divergence where p and q are close, and where they are."""
        return _close.jensen_shannon(log_p, log_q)
