"""Momentum SGD in which distillation has a larger momentum than the labels."""

from collections.abc import Sequence

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill._backend.number_checks import check_in
from keras_distill._backend.optimizer_variables import index_of

_SCHEDULES = LearningRateSchedule, dict
_REFUSED = ("clipnorm", "clipvalue", "global_clipnorm", "gradient_accumulation_steps")


@keras.saving.register_keras_serializable(package="keras_distill")
class DistillationOrientedSGD(keras.optimizers.SGD):
    r"""SGD with two momenta: a smaller one of the labels, a larger one of distillation.

    A distiller computes the gradients g_l of the labels' loss and g_d of the terms apart,
    each with its weight, which costs a second pass backwards:

    .. math::

        m_l &\leftarrow (\mu - d) \, m_l - \mathrm{rate} \cdot g_l

        m_d &\leftarrow (\mu + d) \, m_d - \mathrm{rate} \cdot g_d

        \mathrm{weight} &\leftarrow \mathrm{weight} + m_l + m_d

    The loss of distillation then falls further before the labels' dominates. With `d = 0`
    this is SGD. So it is, with `mu`, for a weight that only one of the two has reached
    so far, such as an adapter's; and for another model than a distiller, which has no
    terms. Penalties of the student, such as L2, belong to the labels, those of adapters to
    the terms.

    Args:
        learning_rate: a number, a schedule or a function. Default 0.01.
        momentum: mu. Default 0.9.
        momentum_gap: d, at most mu, with mu + d below 1. The source has 0.05 to 0.09 for
            mu = 0.9. Default 0.075.
        nesterov: whether each momentum is Nesterov's, as in `keras.optimizers.SGD`.
        weight_decay: as in `keras.optimizers.SGD`: decoupled from the gradients.
        name: of the optimizer.
        **kwargs: `use_ema`, `ema_momentum`, `ema_overwrite_frequency` and
            `loss_scale_factor`, as in `keras.optimizers.SGD`.

    Raises:
        TypeError, ValueError: a momentum is no number or out of range; `clipnorm`,
            `clipvalue`, `global_clipnorm` or `gradient_accumulation_steps` is passed, as
            there is not one gradient but two.

    Example:
        >>> distiller = kd.Distiller(student, teacher)
        >>> distiller.compile(kd.optimizers.DistillationOrientedSGD(0.05), loss)

    Source:
        Zhao, Cui, Song, Liang 2023, DOT: a distillation-oriented trainer.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.9,
        momentum_gap: float = 0.075,
        nesterov: bool = False,
        weight_decay: float | None = None,
        name: str = "distillation_oriented_sgd",
        **kwargs,
    ):
        if not (callable(learning_rate) or isinstance(learning_rate, _SCHEDULES)):
            check_in(0, learning_rate=learning_rate)
        if weight_decay is not None:
            check_in(0, weight_decay=weight_decay)
        check_in(0, 1, momentum=momentum)
        check_in(0, momentum, momentum_gap=momentum_gap)
        if not momentum > 0 or not momentum + momentum_gap < 1:
            raise ValueError(
                "Expected a momentum above 0, and momentum + momentum_gap below 1; got "
                f"momentum={momentum:g} and momentum_gap={momentum_gap:g}."
            )
        for key in _REFUSED:
            if kwargs.get(key) is not None:
                raise ValueError(
                    f"{key} is of one gradient, and DistillationOrientedSGD takes two, of "
                    "the labels and of distillation. Leave it out, or compile with "
                    "keras.optimizers.SGD."
                )
        super().__init__(
            learning_rate,
            float(momentum),
            nesterov,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )
        self.momentum_gap = float(momentum_gap)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the momenta, which are 0."""
        if self.built:
            return
        super().build(variables)
        self.distillation_momentums = self.add_optimizer_variables(
            variables, "distillation_momentum"
        )

    @staticmethod
    def join_parts(labels: Sequence, terms: Sequence) -> list:
        """Return one gradient per variable, as `apply` takes them, of two.

        A distiller computes two gradients for an optimizer that has this method.

        Args:
            labels: gradients of the labels' loss and the student's penalties; None for a
                variable on which these do not depend.
            terms: gradients of the terms, likewise.

        Returns:
            Gradients of shape `(2, ...)`, the labels' first; None where both are None.
        """
        return [_joined(*pair) for pair in zip(labels, terms, strict=True)]

    def update_step(self, gradient, variable, learning_rate) -> None:
        """Update a variable by a joined gradient; by another as SGD does."""
        if len(gradient.shape) == len(variable.shape):
            super().update_step(gradient, variable, learning_rate)
            return
        index, dtype = index_of(self, variable), variable.dtype
        gradients = [ops.cast(gradient[i], dtype) for i in range(2)]
        momenta = [self.momentums[index], self.distillation_momentums[index]]
        rate = ops.cast(learning_rate, dtype)
        reached = [
            ops.logical_or(_is_set(m), _is_set(g))
            for m, g in zip(momenta, gradients, strict=True)
        ]
        gap = ops.cast(ops.logical_and(*reached), dtype) * self.momentum_gap
        total = 0.0
        for m, g, factor in zip(
            momenta, gradients, (self.momentum - gap, self.momentum + gap), strict=True
        ):
            moved = ops.convert_to_tensor(m) * factor - g * rate
            self.assign(m, moved)
            total = total + (moved * factor - g * rate if self.nesterov else moved)
        self.assign_add(variable, total)

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum_gap": self.momentum_gap}


def _joined(labels, terms):
    if labels is None and terms is None:
        return None
    # Of an embedding, TensorFlow's gradient has the rows that were looked up alone.
    pair = [None if x is None else ops.convert_to_tensor(x) for x in (labels, terms)]
    zeros = ops.zeros_like(next(x for x in pair if x is not None))
    return ops.stack([zeros if x is None else x for x in pair])


def _is_set(tensor):
    """Whether any value differs from 0."""
    return ops.any(ops.not_equal(tensor, 0))
