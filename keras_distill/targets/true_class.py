"""The teacher's confidence in the true class alone."""

import keras
from keras import ops

from keras_distill.targets.target import Target, one_hot_labels, spread_rest


@keras.saving.register_keras_serializable(package="keras_distill")
class TrueClass(Target):
    r"""The teacher's probability of the true class, the remaining mass spread evenly.

    .. math::

        p &= \mathrm{softmax}(z_t / T)

        \mathrm{target}_k &= p_y \text{ for the label } k = y

        \mathrm{target}_k &= \frac{1 - p_y}{K - 1} \text{ for the others}

    This isolates one effect of distillation: the teacher's confidence rescales the
    gradient of each sample.

    Example:
        >>> kd.losses.SoftTarget(4.0, target=kd.targets.TrueClass())

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation (KD-pt).
    """

    needs = ("labels",)
    needs_one_class = True

    def call(self, teacher, temperature, labels):
        log_p = ops.log_softmax(teacher / temperature, axis=-1)
        return spread_rest(log_p, one_hot_labels(labels, log_p))
