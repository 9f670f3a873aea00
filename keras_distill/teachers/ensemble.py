"""Ensembles: several models whose predictions are averaged, to teach and to predict."""

from collections.abc import Sequence

import keras

from keras_distill._backend.keras_layers import with_mask
from keras_distill._backend.number_checks import check_finite
from keras_distill.taps import heads
from keras_distill.taps.masks import first_mask
from keras_distill.teachers.averaging_teacher import (
    AveragingTeacher,
    averaged,
    check_predicts,
    check_same_outputs,
)
from keras_distill.teachers.base_teacher import (
    CLASSES,
    VALUES,
    BaseTeacher,
    check_call,
    check_trained,
)
from keras_distill.teachers.teacher import Teacher


@keras.saving.register_keras_serializable(package="keras_distill")
class Ensemble(keras.Model):
    r"""Several models that predict as one.

    It returns the logits whose softmax is the members' averaged prediction, at T = 1:

    .. math::

        p &= \sum_m w_m \, \mathrm{softmax}(z_m) \quad \text{(arithmetic)}

        p &= \mathrm{softmax} \left( \sum_m w_m z_m \right) \quad \text{(geometric)}

    of independent labels the same with a sigmoid; of a regression the mean of outputs. It
    is evaluated and saved as any model. Of several outputs each is averaged. As the
    teacher of a `Distiller` it is a `kd.EnsembleTeacher`, which averages at the
    temperature of the loss.

    Args:
        models: two or more built models over the same inputs and classes, with the same
            outputs.
        average: `"arithmetic"` (default) or `"geometric"`.
        weights: one positive number per model. Default: equal.
        predicts: `"classes"`, the logits of one softmax (default); `"labels"`, a logit
            of a sigmoid for each of K labels; or `"values"`, the numbers of a regression.
        name: model name.

    Raises:
        TypeError, ValueError: as in `kd.EnsembleTeacher`, and for models that end in
            probabilities, or in one output if `predicts` is not given; as it is
            called, for models with other classes or outputs.

    Example:
        >>> ensemble = kd.Ensemble([first, second, third])
        >>> ensemble.predict(images)

    Source:
        Furlanello et al. 2018, Born-again neural networks.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        average: str = "arithmetic",
        *,
        weights: Sequence[float] | None = None,
        predicts: str | None = None,
        name: str | None = None,
    ):
        weights = member_weights(models, average, weights)
        check_predicts(predicts, average)
        if predicts != VALUES:
            for model in models:
                heads.check_logits(model, "member")
        super().__init__(name=name)
        self.members = list(models)
        self.average = average
        self.member_weights = weights
        self.predicts = predicts
        self.built = True

    def call(self, inputs, training=None):
        """Return the logits or values of the averaged prediction, `(..., K)`.

        They have the mask of the first member's that have one. Of models with several
        outputs they are of each output, in the members' structure.
        """
        outputs = [member(inputs, training=training) for member in self.members]
        check_same_outputs(outputs)
        return keras.tree.map_structure(lambda *logits: self._mean(logits), *outputs)

    def _mean(self, logits: Sequence):
        how = self.member_weights, self.average
        mean = averaged(logits, *how, predicts=self.predicts or CLASSES)
        return with_mask(mean, first_mask(logits))

    def compute_output_shape(self, input_shape):
        return self.members[0].compute_output_shape(input_shape)

    def get_config(self) -> dict:
        return {
            "models": list(map(keras.saving.serialize_keras_object, self.members)),
            "average": self.average,
            "weights": self.member_weights,
            "predicts": self.predicts,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "Ensemble":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))


class EnsembleTeacher(AveragingTeacher):
    r"""Several teachers whose predictions are averaged.

    The target at temperature T is, with weights `w_m` that sum to one,

    .. math::

        p &= \sum_m w_m \, \mathrm{softmax}(z_m / T) \quad \text{(arithmetic)}

        p &= \mathrm{softmax} \left( \sum_m w_m z_m / T \right) \quad \text{(geometric)}

    both in log space. Where a loss takes outputs for independent labels, the softmax is a
    sigmoid; where it compares values, as in a regression, the target is their mean,
    sum_m w_m z_m. The logits of an arithmetic mean are log-probabilities times T, whatever
    constants the members' logits have, so that losses on raw logits, such as
    `kd.losses.LogitRegression()`, compare the student with normalized ones. A layer of one
    member is tapped with the member's index in front of the path, `"0/stack2"`, and so
    are its own logits, `"0/logits"`.

    Args:
        models: two or more built models over the same inputs and classes. A member may be
            a `kd.Teacher` of some of its classes, in the order of the other members.
        average: `"arithmetic"` (default) or `"geometric"`.
        weights: one positive number per model. Default: equal.
        portions: number of parts in which each takes a batch, as in `kd.Teacher`.
            Default 1.
        predicts: what the members predict, as in `kd.Ensemble`. Default: what the loss
            takes outputs for, or the loss passed to `compile`.

    Raises:
        TypeError: a member is not a `keras.Model`.
        ValueError: fewer than two models, one of them twice or not built, an unknown
            average, weights that do not fit, or `portions` below 1; a geometric average
            of values; in a distiller, a term that takes outputs for something else.

    Example:
        >>> teacher = kd.EnsembleTeacher([first, second], average="geometric")
        >>> distiller = kd.Distiller(student, teacher)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network.
    """

    def __init__(
        self,
        models: Sequence[keras.Model | Teacher],
        average: str = "arithmetic",
        *,
        weights: Sequence[float] | None = None,
        portions: int = 1,
        predicts: str | None = None,
    ):
        members = [m.model if type(m) is Teacher else m for m in models]
        weights = member_weights(members, average, weights)
        super().__init__(
            members,
            average,
            weights,
            portions=portions,
            predicts=predicts,
            classes=_classes_of(models),
        )


def _classes_of(members: Sequence) -> list | None:
    """Return the classes of each member, None if all have all."""
    teachers = [member for member in members if type(member) is Teacher]
    if any(teacher.portions > 1 for teacher in teachers):
        raise ValueError(
            "The members of an ensemble take a batch in the same portions: pass portions "
            "to kd.EnsembleTeacher, not to its members."
        )
    if all(teacher.classes is None for teacher in teachers):
        return None
    return [m.classes if type(m) is Teacher else None for m in members]


def as_teacher(teacher: keras.Model | BaseTeacher) -> BaseTeacher:
    """Return a teacher as it is, a model as one, an ensemble as that of its members."""
    if isinstance(teacher, Ensemble):
        return EnsembleTeacher(
            teacher.members,
            teacher.average,
            weights=teacher.member_weights,
            predicts=teacher.predicts,
        )
    if not isinstance(teacher, BaseTeacher):
        return Teacher(teacher)
    if not hasattr(teacher, "models"):
        raise TypeError(
            f"{type(teacher).__name__} was not initialized: call super().__init__(models) "
            "in its __init__, with the models that run when it is called."
        )
    check_call(teacher)
    return teacher


def member_weights(
    models: Sequence, average: str, weights: Sequence | None, least: int = 2
) -> list[float]:
    """Check the arguments of an `EnsembleTeacher`; return weights that sum to one."""
    if len(models) < least or len({id(model) for model in models}) < len(models):
        raise ValueError(
            "An ensemble needs two or more different models; got "
            f"{[getattr(model, 'name', model) for model in models]}. "
            "Pass a single teacher to the Distiller itself."
        )
    if average not in ("arithmetic", "geometric"):
        raise ValueError(f"average is 'arithmetic' or 'geometric'; got {average!r}.")
    weights = [1.0] * len(models) if weights is None else list(weights)
    check_finite(**{f"weights[{i}]": weight for i, weight in enumerate(weights)})
    if len(weights) != len(models) or min(weights) <= 0:
        raise ValueError(
            f"An ensemble of {len(models)} models needs as many positive weights; "
            f"got {weights}."
        )
    for model in models:
        if isinstance(model, BaseTeacher):
            kind = type(model).__name__
            raise TypeError(
                f"An ensemble's members are keras.Model or kd.Teacher; got a {kind}."
            )
        check_trained(model)
    return [weight / sum(weights) for weight in weights]
