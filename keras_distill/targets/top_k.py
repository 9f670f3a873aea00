"""The top of the teacher's prediction."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_integers
from keras_distill.targets.target import Target, spread_rest


@keras.saving.register_keras_serializable(package="keras_distill")
class TopK(Target):
    r"""The k largest probabilities, the remaining mass spread evenly.

    .. math::

        p &= \mathrm{softmax}(z_t / T)

        \mathrm{target}_j &= p_j \text{ for the } k \text{ largest}

        \mathrm{target}_j &= \frac{1 - \sum_{\mathrm{largest}} p_i}{K - k}
            \text{ for the others}

    This removes the teacher's noise on unlikely classes, and is all that a cache of a
    large vocabulary has to store. With k = K it is the prediction itself. Classes tied
    with the k-th are kept too.

    Args:
        k: number of classes to keep, 1 or more.

    Raises:
        ValueError: `k` is below 1.

    Example:
        >>> kd.losses.SoftTarget(4.0, target=kd.targets.TopK(25))

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation (KD-topk).
    """

    def __init__(self, k: int):
        check_integers(1, k=k)
        self.k = k

    def call(self, teacher, temperature):
        log_p = ops.log_softmax(teacher / temperature, axis=-1)
        if self.k >= log_p.shape[-1]:
            return log_p
        least = ops.top_k(log_p, self.k, sorted=True)[0][..., -1:]
        return spread_rest(log_p, ops.cast(log_p >= least, log_p.dtype))
