"""What trackers of experiments log of a distiller: its settings, weights over time."""

from collections.abc import Iterable, Mapping

import keras

from keras_distill._backend.configuration import call_text, own_arguments, summary
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.schedules import BALANCED, UNMEASURED


class Tracking:
    """Describe a distiller: parameters, weights in the logs, a short text.

    A mixin in front of `keras.Model`, for a distiller with `terms` and `label_weight`.
    """

    # Whether the logs show weights and temperatures, which `compile` sets.
    log_weights = False

    def get_params(self) -> dict[str, str | int | float | bool]:
        """Return what is trained and how, as a flat dict of plain values.

        It is what trackers such as MLflow take as parameters: student and teacher by name
        and number of parameters, the weight of the labels, and of each term the loss, its
        arguments, the taps and the weight. A schedule is a short text.

        Example:
            >>> parameters = distiller.get_params()  # for mlflow.log_params
        """
        teacher, found = self.teacher, {"distiller": type(self).__name__}
        found |= params_of_models("student", [self.student])
        if teacher is not None:
            found["teacher_kind"] = type(teacher).__name__
            found |= params_of_models("teacher", teacher.models)
        found["label_weight"] = summary(self.label_source)
        return found | params_of_terms(self.terms)

    def logged_weights(self) -> dict[str, keras.Variable]:
        """Return the variables of weights and temperatures, by their name in the logs."""
        if not self.log_weights:
            return {}
        found = {"label_weight": self.label_weight}
        for name, bound in self.terms.items():
            found[f"{name}_weight"] = bound.weight
            for argument in bound.term.loss.scheduled:
                found[f"{name}_{argument}"] = getattr(bound, argument)
        return found

    def __repr__(self) -> str:
        """Return the names of student and teacher, and the weights."""
        weights = {name: summary(x.term.weight) for name, x in self.terms.items()}
        teachers = self.teacher.models if self.teacher is not None else ()
        shown = {"student": self.student.name}
        if teachers:
            shown["teacher"] = ", ".join(x.name for x in teachers)
        shown["label_weight"] = self.label_source
        texts = [f"{name}: {weight}" for name, weight in weights.items()]
        text = call_text(type(self).__name__, shown)
        return f"{text[:-1]}, terms={{{', '.join(texts)}}})"


def params_of_models(side: str, models: Iterable[keras.Model]) -> dict:
    """Return names and number of parameters of models, for a tracker."""
    models = list(models)
    if not models:
        return {}
    found = {side: ", ".join(model.name for model in models)}
    if all(model.built for model in models):
        found[f"{side}_parameters"] = sum(model.count_params() for model in models)
    return found


def params_of_terms(terms: Mapping) -> dict:
    """Return losses, their arguments, taps and weights of bound terms, for a tracker."""
    found = {}
    for name, bound in terms.items():
        term = bound.term
        settings = {"loss": type(term.loss).__name__}
        settings |= own_arguments(term.loss, DistillationLoss)
        settings |= {
            "student": ", ".join(map(str, term.student)),
            "teacher": ", ".join(map(str, term.teacher)) or None,
            "weight": _weight(bound),
        }
        found |= {
            f"{name}.{key}": summary(value)
            for key, value in settings.items()
            if value is not None
        }
    return found


def _weight(bound):
    """Return a term's weight: the one measured where it is balanced, once known."""
    if bound.term.weight != BALANCED:
        return bound.term.weight
    value = float(keras.ops.convert_to_numpy(bound.weight))
    return BALANCED if value == UNMEASURED else value
