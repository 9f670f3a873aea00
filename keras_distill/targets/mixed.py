"""Two targets in one."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_finite
from keras_distill.targets.target import Target


@keras.saving.register_keras_serializable(package="keras_distill")
class Mixed(Target):
    r"""A mixture of two targets.

    .. math::

        p = (1 - \mathrm{share}) \, p_{\mathrm{first}} + \mathrm{share} \, p_{\mathrm{second}}

    of their probabilities. KD-pt+sim mixes `TrueClass` and `ClassSimilarity`.

    Args:
        first: a target.
        second: another target.
        share: weight of the second target, between 0 and 1. Default 0.5.

    Raises:
        ValueError: `share` is not between 0 and 1.

    Example:
        >>> kernel = teacher.get_layer("logits").kernel.numpy()
        >>> similarity = kd.targets.ClassSimilarity(kernel.T)
        >>> kd.targets.Mixed(kd.targets.TrueClass(), similarity, share=0.3)

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation
        (KD-pt+sim).
    """

    def __init__(self, first: Target, second: Target, share: float = 0.5):
        check_finite(share=share)
        if not 0 < share < 1:
            raise ValueError(
                "share is the weight of the second target, between 0 and 1; got "
                f"{share}. For 0 or 1, use one of the targets alone."
            )
        self.first = first
        self.second = second
        self.share = share
        self.needs_one_class = first.needs_one_class or second.needs_one_class
        self.needs = tuple(dict.fromkeys((*first.needs, *second.needs)))

    def call(self, teacher, temperature, **context):
        first = self.first(teacher, temperature, **context)
        second = self.second(teacher, temperature, **context)
        return ops.logaddexp(
            first + ops.log(1.0 - self.share), second + ops.log(self.share)
        )
