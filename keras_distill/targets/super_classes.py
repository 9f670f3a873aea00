"""A target made from a class hierarchy."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_distill._backend.number_checks import check_finite
from keras_distill.targets.target import ABSENT, LOG_ZERO, Target, one_hot_labels


@keras.saving.register_keras_serializable(package="keras_distill")
class SuperClasses(Target):
    r"""Fixed probabilities for the true class, for its super-class and for the rest.

    .. math::

        p_k = \frac{m_k}{\sum_j m_j}, \quad m_k \in \{a, b, c\}

    with a for the label, b for each other class of its super-class and c for each of
    the rest. The teacher is not used: this measures what the class hierarchy
    contributes alone.

    Args:
        super_classes: super-class of each class, `(K,)`.
        masses: a > 0, b >= 0 and c >= 0. Default 0.95, 0.02 and 0.001.

    Raises:
        ValueError: `masses` is not three such numbers.

    Example:
        >>> kd.targets.SuperClasses([0, 0, 1, 1, 1], (0.9, 0.05, 0.01))

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation (KD-rel).
    """

    needs = ("labels",)
    needs_one_class = True

    def __init__(
        self,
        super_classes: Sequence[int],
        masses: tuple[float, float, float] = (0.95, 0.02, 0.001),
    ):
        check_finite(**{f"masses[{i}]": mass for i, mass in enumerate(masses)})
        if len(masses) != 3 or min(masses) < 0 or not masses[0] > 0:
            raise ValueError(
                "masses is 3 non-negative numbers: for the true class (above 0), for each "
                f"other class of its super-class, for each other class; got {masses}."
            )
        self.super_classes = [int(group) for group in super_classes]
        self.masses = list(masses)

    def call(self, teacher, temperature, labels):
        label = one_hot_labels(labels, teacher)
        groups = ops.cast(self.super_classes, teacher.dtype)
        group_of_label = ops.sum(label * groups, axis=-1, keepdims=True)
        of_class, of_group, of_others = self.masses
        masses = ops.where(groups == group_of_label, of_group, of_others)
        masses = ops.cast(masses, teacher.dtype)
        masses = ops.where(label > 0, of_class, masses)
        present = teacher > ABSENT
        masses = ops.where(present, masses, 0.0)
        p = masses / ops.sum(masses, axis=-1, keepdims=True)
        log_p = ops.where(p > 0, ops.log(ops.where(p > 0, p, 1.0)), LOG_ZERO)
        return ops.where(present, log_p, ABSENT)
