"""What a distiller checks before the first step, and what it warns of."""

import warnings

import keras
from keras import ops

from keras_distill.data.selection import names_of_outputs, part_of_output
from keras_distill.distillers import (
    adapter_checks,
    balancing,
    first_look,
    label_tasks,
    log_names,
    mixed_labels,
    tasks,
    term_checks,
)
from keras_distill.distillers.ignored import ignored_class
from keras_distill.training import data_checks, first_batch


class Checking:
    """The checks of a `Distiller` before it trains or evaluates.

    A mixin in front of `keras.Model`.
    """

    first_batch_checked = warned_of_labels = warned_of_guesses = False

    def check_fit(self, batch) -> None:
        """Check teacher, data and loss before the first step, and balance weights.

        A batch is `(x, y, ...)`, all of the data if they are arrays; or None.
        """
        self.check_before_step(batch)
        balancing.balance(self, batch)

    def check_before_step(self, batch) -> None:
        """Check teacher, data and loss before the first step.

        A batch is as in `check_fit`.
        """
        term_checks.check_has_teacher(self.teacher)
        weights = self.logged_weights()
        log_names.check_names(self.part_names(), [*self.logged_names(), *weights])
        log_names.check_names(weights, self.logged_names())
        loss = None if self.has_own_loss() else getattr(self, "loss", None)
        if batch is not None:
            x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
            self.entry.check(x)
            if self.teacher.adapts_to_data:
                few = keras.tree.map_structure(lambda part: part[:2], x)
                self.teacher.adapt(self.entry.taught(few))
            if not self.is_bound:
                self.bind_to(x)
            term_checks.check_keyed(self.unnamed_outputs, labels=y, losses=loss)
            label_tasks.follow_labels(self, y)
            tasks.check(self)
            label_tasks.warn_of_guesses(self, y)
            self.entry.build(x)
            self.check_labels(y, loss)
            self._check_sample_ids(x)
            self.warn_of_unused_labels(y)
        elif self.ends_in_logits:
            data_checks.check_logits_loss(loss)
        adapter_checks.check_prepared(bound.term for bound in self.terms.values())
        term_checks.check_nothing_shared(self)
        self._check_first_batch(batch)

    def _check_sample_ids(self, x) -> None:
        """Check the ids of inputs for each loss that needs them."""
        for name, bound in self.terms.items():
            if "sample_ids" in bound.term.loss.needs and self.sample_ids is not None:
                ids = ops.convert_to_numpy(self.entry.ids(x))
                try:
                    bound.term.loss.check_sample_ids(ids)
                except ValueError as error:
                    raise ValueError(f"Term '{name}': {error}") from error

    def _check_first_batch(self, batch) -> None:
        """Check the values of a batch, once for each teacher and `compile`."""
        if batch is not None and not self.first_batch_checked:
            rows = first_batch.rows_of(batch, self.rows_to_check)
            if rows is not None:
                unpacked = keras.utils.unpack_x_y_sample_weight(rows)
                first_look.check_first_batch(self, *unpacked)
                self.first_batch_checked = True

    def check_test(self, batch) -> None:
        """Check labels and loss before the first evaluation of a batch."""
        _, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        loss = None if self.has_own_loss() else getattr(self, "loss", None)
        if self.validates_terms and self.shapes is not None:
            label_tasks.follow_labels(self, y)
        if y is not None:
            data_checks.check_labels(y, self.classes, loss)
        if self.ends_in_logits:
            data_checks.check_logits_loss(loss)

    def check_labels(self, labels, loss) -> None:
        """Check labels, or that there are none, against terms and a loss."""
        data_checks.check_labels(labels, self.classes, loss)
        terms = [bound.term for bound in self.terms.values()]
        names = names_of_outputs(self.student)
        for term in terms:
            tap = term.student[0]
            part = part_of_output(labels, tap, names)
            if labels is not None:
                data_checks.check_has_part(part, term)
            ignored = ignored_class(loss, tap, names)
            data_checks.check_term_labels(part, self.classes, [term], ignored)
            data_checks.check_no_sample_is_ignored(part, term, ignored)
        if self.ends_in_logits:
            data_checks.check_logits_loss(loss)

    def cause_of_nan(self, name: str) -> str:
        """Return why a part of the loss may be NaN, beside values that are not finite."""
        of_loss = (
            self.terms[name].term.loss.cause_of_nan() if name in self.terms else ""
        )
        return mixed_labels.cause_of_nan(self.terms, name) + of_loss

    def check_scheduled(self) -> None:
        """Check the temperatures, which callbacks may have assigned to."""
        for bound in self.terms.values():
            bound.check_scheduled()

    def logged_names(self) -> set[str]:
        """Return the names in the logs of metrics and of the losses of single outputs."""
        compiled = self.compile_arguments()
        metrics = [compiled.get(kind) for kind in ("metrics", "weighted_metrics")]
        outputs = getattr(self, "output_names", None)
        return log_names.compiled_names(metrics, outputs) | set(self.metric_names())

    def metric_names(self) -> list[str]:
        """Return the names of the metrics that are built, without the parts of the loss."""
        own = "loss", self.part_means.name, "compile_metrics"
        return [metric.name for metric in self.metrics if metric.name not in own]

    def warn_of_unused_labels(self, labels) -> None:
        """Warn once of labels that nothing uses, as no loss was compiled."""
        if labels is None or self.has_label_loss() or self.warned_of_labels:
            return
        terms = [bound.term for bound in self.terms.values()]
        used = self.logged_names() or any(term.uses_labels() for term in terms)
        is_default = isinstance(self.label_source, float) and self.label_source == 1.0
        if self.label_source == 0 or (is_default and used):
            return
        self.warned_of_labels = True
        warnings.warn(
            "The data have labels, but compile() got no loss for them, so label_weight "
            "weighs nothing and the student learns from its teacher alone. Pass a loss to "
            "compile(), or label_weight=0 if that is meant.",
            stacklevel=4,
        )
