"""Evaluation: of the student alone, or with `validate_terms` of the terms too."""

import warnings

import keras
from keras import ops

from keras_distill import strategies
from keras_distill._backend import evaluation_step
from keras_distill.data.entry import unwrap_weight
from keras_distill.distillers import term_checks
from keras_distill.distillers.replica_parts import label_weights


class Evaluation:
    """What a distiller does in `evaluate`, and in `fit` on validation data.

    A mixin in front of `keras.Model`.
    """

    validates_terms = False
    # Whether the last evaluation that was traced had penalties.
    has_penalties = False

    def test_step(self, *arguments):
        """Evaluate the student alone, or with the teacher and the terms."""
        if self.validates_terms:
            return reducible(terms_step(self, *arguments))
        *state, data = arguments
        result = super().test_step(*state, unwrap_weight(data))
        logs, *state = result if isinstance(result, tuple) else (result,)
        if not self.has_label_loss() and not self.has_penalties:
            logs = {name: value for name, value in logs.items() if name != "loss"}
        if not logs:
            raise ValueError(_NOTHING)
        return reducible((logs, *state) if state else logs)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Return the compiled loss; in an evaluation with the student's penalties.

        In training, `total` adds these.
        """
        if training:
            return self.label_loss(x, y, y_pred, sample_weight, training)
        self.check_has_labels(y)
        self.has_penalties = bool(self.losses)
        if not self.has_label_loss() and not self.has_penalties:
            return ops.zeros(())
        if self.has_label_loss() and not self.has_own_loss():
            count = ops.shape(keras.tree.flatten(x)[0])[0]
            counts = count, strategies.mean_count(count)
            sample_weight = label_weights(y, y_pred, sample_weight, self.loss, *counts)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def check_has_labels(self, labels) -> None:
        """Check that there are labels for a compiled loss, in an evaluation."""
        if labels is None and self.has_label_loss() and not self.has_own_loss():
            raise ValueError(
                "A loss for labels was compiled, but the data to evaluate on have none. "
                "Pass labels, or leave out the loss in compile() and set label_weight=0."
            )

    def check_validation(self, labels, has_validation: bool) -> None:
        """Check, before `fit` begins, that there is something to evaluate.

        Args:
            labels: of the first batch, or None.
            has_validation: whether `fit` got validation data.
        """
        has_metrics = any(
            metric.name not in ("loss", self.part_means.name) for metric in self.metrics
        )
        judged = self.has_label_loss() or has_metrics or self.student.losses
        if has_validation and not judged and not self.validates_terms:
            raise ValueError(_NOTHING)
        unused = labels is None and not has_validation
        if unused and self.compile_arguments().get("metrics"):
            warnings.warn(
                "Metrics were compiled, but the data have no labels for them: none is "
                "computed. Pass labels, or validation_data that have them.",
                stacklevel=4,
            )


_NOTHING = (
    "There is nothing to evaluate: neither a loss nor metrics were compiled. Pass metrics "
    "or a loss to compile(), for data with labels, or validate_terms=True to evaluate "
    "what the student has learnt from its teacher."
)


def terms_step(distiller, *arguments):
    """Evaluate the terms of a distiller on a batch."""
    term_checks.check_has_teacher(getattr(distiller, "teacher", distiller))
    x, *_ = keras.utils.unpack_x_y_sample_weight(arguments[-1])
    for member in getattr(distiller, "members", [distiller]):
        if not member.is_bound:
            member.bind_to(x)
    return evaluation_step.test_step(distiller, *arguments)


def check_validates(terms) -> None:
    """Check that terms have a value on data that the student is not trained on."""
    for term in terms:
        if term_checks.has_memory(term.loss):
            raise ValueError(
                f"The loss of term '{term.name}' compares samples with those of its "
                "memory, which are training samples; it has no value on other data. "
                "Leave out validate_terms, or the term."
            )


def where_samples(means: dict, count) -> dict:
    """Return means, with 0 where a replica has no samples of the last batch."""
    return {name: ops.where(count > 0, x, 0.0) for name, x in means.items()}


def reducible(result):
    """Return logs in a shape that Keras can average over replicas, and any state."""
    if not isinstance(result, tuple):
        return strategies.reducible(result)
    logs, *state = result
    return strategies.reducible(logs), *state
