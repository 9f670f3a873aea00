"""Stages: trainings of one student in order, as data."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import taps
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.adapters import Paraphraser
from keras_distill.data.selection import select
from keras_distill.distillers import shapes
from keras_distill.distillers import term_checks as checks
from keras_distill.distillers.copied import copied
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.term import Term
from keras_distill.losses.schedules import at_step
from keras_distill.schemes.stage_data import Data
from keras_distill.taps import Tap, tracing


class Stage:
    """One training of a student, with terms and an optimiser of its own.

    Args:
        terms: what is learnt from the teacher. Default: the distiller's own terms and
            label weight.
        trains: the part of the student that is trained: up to this layer or tap; in a
            pair, what lies behind the first and up to the second; or `"all"` (default).
            All other layers stay as they are, batch normalisation in inference form.
        label_weight: of the distiller's compiled loss. Default 1; 0 leaves labels and
            metrics out, and the student then runs only up to its deepest tap.
        optimizer: a name or an optimiser; each stage takes a fresh copy. Default Adam.
        epochs: at most. Default 1.
        callbacks: for this stage alone, such as a stopping rule,
            `keras.callbacks.EarlyStopping("loss")`.
        name: shown while it runs. Default: the terms' names.

    Raises:
        ValueError: nothing to learn, no epochs, or bad terms.

    Example:
        >>> kd.Stage([hint], trains="stack2", label_weight=0.0, epochs=20)

    Source:
        Romero et al. 2015, FitNets: hints for thin deep nets (algorithm 1).
    """

    def __init__(
        self,
        terms: Sequence[Term] | None = None,
        *,
        trains: str | Tap | tuple = "all",
        label_weight: float | LearningRateSchedule = 1.0,
        optimizer: str | keras.Optimizer = "adam",
        epochs: int = 1,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        name: str | None = None,
    ):
        checks.are_terms(terms or [])
        self.terms = None if terms is None else list(terms)
        self.trains = () if trains == "all" else taps.as_taps(trains)
        if len(self.trains) > 2:
            raise ValueError(
                "trains is 'all', the layer up to which a stage trains, or a pair of "
                f"layers; got {trains!r}."
            )
        self.label_weight = checks.not_negative(label_weight, "label_weight")
        self.optimizer = optimizer
        self.epochs = at_least_one(epochs)
        self.callbacks = list(callbacks)
        parts = ["labels"] * may_count(label_weight) + [t.name for t in terms or []]
        self.name = name or ("distiller" if terms is None else ", ".join(parts))
        weights = [label_weight, *(term.weight for term in terms or [])]
        if terms is not None and not any(map(may_count, weights)):
            raise ValueError(
                f"The stage '{self.name}' has nothing to learn: no term and no label "
                "loss of a weight above 0. Give it terms or a label_weight."
            )

    def trainer(self, distiller: Distiller, data: Data) -> keras.Model:
        """Make what `fit` is called on, with all checks.

        Args:
            distiller: the scheme's.
            data: what it will be fitted on.
        """
        made, x = distiller, data.inputs
        if self.terms is not None:
            made = distiller.with_terms(self.terms, self.label_weight)
        if not made.built and x is not None:
            made.bind_to(x)
        if self._uses_labels(distiller) and distiller.loss is None:
            raise ValueError(
                f"The stage '{self.name}' learns from labels, but the distiller was "
                "compiled without a loss. Compile it with one, or set label_weight=0."
            )
        if data.was_looked_at:
            loss = distiller.loss if self._uses_labels(distiller) else None
            made.can_take(data.labels, loss)
        with self._part_alone(distiller, x):
            if not made.student.trainable_weights:
                raise ValueError(
                    f"The stage '{self.name}' trains nothing: the student has no "
                    f"trainable weights in {' to '.join(map(str, self.trains)) or 'it'}. "
                    "Name other layers in trains=, or make those trainable."
                )
        return made

    def check(self, distiller: Distiller, prepared: Sequence) -> list:
        """Check against the stages before; give the layers that this one prepares."""
        own = [bound.term for bound in distiller.terms.values()]
        checks.are_prepared(own if self.terms is None else self.terms, prepared)
        return []

    def fit(self, trainer: Distiller, distiller: Distiller, data: Data, callbacks):
        """Train; give the history."""
        labelled = self._uses_labels(distiller)
        settings = {**data.compiled, "optimizer": self.optimizer}
        with self._part_alone(distiller, data.inputs):
            with data.scope():
                trainer.compile(**with_fresh_optimizer(settings, labelled))
            return data.fit(
                trainer, self.epochs, [*self.callbacks, *callbacks], labelled
            )

    def finish(self) -> None:
        """Leave things as the next stage wants them."""

    def _uses_labels(self, distiller: Distiller) -> bool:
        if self.terms is None:
            return distiller.loss is not None
        return may_count(self.label_weight)

    @contextlib.contextmanager
    def _part_alone(self, distiller: Distiller, x):
        """Freeze what lies outside the part that is trained."""
        apart = self._apart(distiller, x) if self.trains else []
        leaves = [layer for layer in apart if not taps.sublayers(layer)]
        # Of a layer with sublayers, which may lie within the part, its own weights.
        own = [v for layer in apart for v in _own_weights(layer)]
        before = [(one, one.trainable) for one in [*leaves, *own]]
        for one, _ in before:
            one.trainable = False
        try:
            yield
        finally:
            for one, trainable in before:
                one.trainable = trainable

    def _apart(self, distiller: Distiller, x) -> list[keras.Layer]:
        *begin, end = (self._up_to(distiller, x, tap) for tap in self.trains)
        part = end - begin[0] if begin else end
        layers = flatten_layers(distiller.student)
        return [layer for layer in layers if id(layer) not in part]

    def _up_to(self, distiller: Distiller, x, tap: Tap) -> set:
        inputs = tracing.input_of(distiller.student)
        if inputs is None:
            inputs = tracing.trace(lambda x: select(x, distiller.student_inputs), x)
        return {id(y) for y in taps.layers_up_to(distiller.student, inputs, tap)}


class ParaphraserStage:
    """Train a paraphraser on a layer of the teacher, for a later stage's factors.

    Args:
        paraphraser: that a `kd.losses.FactorTransfer` of a later stage has.
        tap: the teacher's layer.
        optimizer, epochs, callbacks, name: as in `kd.Stage`.

    Raises:
        ValueError: no epochs, or no such layer.

    Example:
        >>> paraphraser = kd.adapters.Paraphraser()
        >>> factors = kd.losses.FactorTransfer(paraphraser)
        >>> kd.fit_stages(distiller, [
        ...     kd.ParaphraserStage(paraphraser, "stack3", epochs=10),
        ...     kd.Stage([kd.Term(factors, "stack3", "stack3")], epochs=100),
        ... ], train)

    Source:
        Kim, Park, Kwak 2018, Paraphrasing complex network: network compression via
        factor transfer.
    """

    def __init__(
        self,
        paraphraser: Paraphraser,
        tap: str | Tap,
        *,
        optimizer: str | keras.Optimizer = "adam",
        epochs: int = 1,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        name: str = "paraphraser",
    ):
        self.paraphraser = paraphraser
        self.tap = taps.as_taps(tap)[0]
        self.optimizer = optimizer
        self.epochs = at_least_one(epochs)
        self.callbacks = list(callbacks)
        self.name = name

    def trainer(self, distiller: Distiller, data: Data) -> keras.Model:
        """Make what `fit` is called on."""
        teacher, tap, part = distiller.teacher, self.tap, distiller.teacher_inputs
        if not self.paraphraser.built:
            seen = tracing.trace(lambda x: select(x, part), data.inputs)
            found = shapes.of_teacher(teacher, seen, [tap])
            self.paraphraser.build(tuple(found[str(tap)]))
        return self.paraphraser.trainer(lambda x: teacher(select(x, part), [tap])[tap])

    def check(self, distiller: Distiller, prepared: Sequence) -> list:
        """Give the paraphraser, which is prepared then."""
        return [self.paraphraser]

    def fit(self, trainer, distiller: Distiller, data: Data, callbacks):
        """Train; give the history."""
        with data.scope():
            trainer.compile(copied(keras.optimizers.get(self.optimizer)))
        return data.fit(trainer, self.epochs, [*self.callbacks, *callbacks], False)

    def finish(self) -> None:
        """Freeze the paraphraser."""
        self.paraphraser.trainable = False


def _own_weights(layer: keras.Layer) -> list:
    """List the weights that a layer with sublayers has beside theirs."""
    return list(layer._trainable_variables) if taps.sublayers(layer) else []


def with_fresh_optimizer(compiled: Mapping, labelled: bool = True) -> dict:
    """Give arguments of `compile` with an optimiser without a past.

    Args:
        compiled: the arguments; without an optimiser it is Adam.
        labelled: else what needs labels is left out.
    """
    optimizer = keras.optimizers.get(compiled.get("optimizer", "adam"))
    of_labels = ("loss", "loss_weights", "metrics", "weighted_metrics")
    left = {} if labelled else dict.fromkeys(of_labels)
    return {**compiled, **left, "optimizer": copied(optimizer)}


def at_least_one(count: int, name: str = "epochs") -> int:
    """Refuse a training of no epochs."""
    if count < 1:
        raise ValueError(f"{name} is 1 or more; got {count}.")
    return count


def may_count(weight) -> bool:
    """Tell whether a weight, or what a schedule makes of it, may be above 0."""
    return isinstance(weight, LearningRateSchedule) or float(at_step(weight, 0)) > 0
