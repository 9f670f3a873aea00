"""Stages: the consecutive trainings of one student."""

import contextlib
from collections.abc import Mapping, Sequence

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import taps
from keras_distill._backend.keras_layers import flatten_layers, own_trainable_variables
from keras_distill._backend.number_checks import check_integers
from keras_distill.adapters import Paraphraser
from keras_distill.data.preprocessing import preprocessing_of
from keras_distill.distillers import adapter_checks, term_checks
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.kept_compile import copied
from keras_distill.distillers.term import Term
from keras_distill.losses.schedules import BALANCED
from keras_distill.schemes.stage_data import StageData
from keras_distill.taps import Tap, tracing


class Stage:
    """One training of a student, with its own terms and optimizer.

    Args:
        terms: what to learn from the teacher. Default: the distiller's terms and its
            label weight.
        trains: the part of the student to train: the layers up to this layer or tap; for
            a pair, those after the first and up to the second; or `"all"` (default).
            All other layers are frozen, with batch normalization in inference mode.
        label_weight: weight of the distiller's compiled loss. Default 1. With 0, labels
            and metrics are not used, and the student runs only up to its deepest tap.
        optimizer: name or optimizer, of which the stage uses a fresh copy. Default Adam.
        epochs: maximum number of epochs. Default 1.
        callbacks: callbacks for this stage alone, such as
            `keras.callbacks.EarlyStopping("loss")`.
        name: name in the progress output. Default: the terms' names.

    Raises:
        ValueError: there is nothing to learn, no epoch, or an invalid term.

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
        term_checks.check_terms(terms or [])
        self.terms = None if terms is None else list(terms)
        self.trains = () if trains == "all" else taps.as_taps(trains)
        if len(self.trains) > 2:
            raise ValueError(
                "trains must be 'all', the last layer to train, or a pair of layers; got "
                f"{trains!r}."
            )
        term_checks.check_not_negative(label_weight, "label_weight")
        self.label_weight = label_weight
        self.optimizer = optimizer
        check_integers(1, epochs=epochs)
        self.epochs = epochs
        self.callbacks = list(callbacks)
        labels = ["labels"] * may_be_positive(label_weight)
        parts = [*labels, *(term.name for term in terms or [])]
        self.name = name or ("distiller" if terms is None else ", ".join(parts))
        weights = [label_weight, *(term.weight for term in terms or [])]
        if terms is not None and not any(map(may_be_positive, weights)):
            raise ValueError(
                f"The stage '{self.name}' has nothing to learn: neither a term nor the "
                "label loss has a weight above 0. Pass terms or a label_weight."
            )

    def trainer(self, distiller: Distiller, data: StageData) -> keras.Model:
        """Check the stage, and return the model on which `fit` is called."""
        trainer, x = distiller, data.inputs
        if self.terms is not None:
            trainer = distiller.with_terms(self.terms, self.label_weight)
        if not trainer.built and x is not None:
            trainer.bind_to(x)
        if self._uses_labels(distiller) and not distiller.has_label_loss():
            raise ValueError(
                f"The stage '{self.name}' learns from labels, but the distiller was "
                "compiled without a loss. Compile it with one, or set label_weight=0."
            )
        if x is not None:
            loss = distiller.loss if self._uses_labels(distiller) else None
            trainer.check_labels(data.labels, loss)
        with self._freeze_other_layers(distiller, x):
            if not trainer.student.trainable_weights:
                layers = " to ".join(map(str, self.trains))
                raise ValueError(
                    f"The stage '{self.name}' trains nothing: the student has no "
                    f"trainable weights{layers and ' in '}{layers}. Pass other layers as "
                    "trains=, or make these trainable."
                )
        return trainer

    def check(self, distiller: Distiller, prepared: Sequence) -> list:
        """Check that earlier stages prepare what this one needs; return what it prepares."""
        terms = self.terms
        if terms is None:
            terms = [bound.term for bound in distiller.terms.values()]
        adapter_checks.check_prepared(terms, prepared)
        return []

    def fit(self, trainer: Distiller, distiller: Distiller, data: StageData, callbacks):
        """Train, and return the `keras.callbacks.History`."""
        labeled = self._uses_labels(distiller)
        settings = {**data.compiled, "optimizer": self.optimizer}
        with self._freeze_other_layers(distiller, data.inputs):
            with data.scope():
                trainer.compile(**with_fresh_optimizer(settings, labeled))
            callbacks = [*self.callbacks, *callbacks]
            return data.fit(trainer, self.epochs, callbacks, labeled)

    def finish(self) -> None:
        """Prepare the next stage; there is nothing to do."""

    def _uses_labels(self, distiller: Distiller) -> bool:
        if self.terms is None:
            return distiller.has_label_loss()
        return may_be_positive(self.label_weight)

    @contextlib.contextmanager
    def _freeze_other_layers(self, distiller: Distiller, x):
        """Freeze the layers outside the trained part within a context."""
        frozen, variables = [], []
        for layer in self._other_layers(distiller, x) if self.trains else ():
            # Sublayers may belong to the part, so only the layer's own weights freeze.
            nested = taps.sublayers(layer)
            frozen += own_trainable_variables(layer) if nested else [layer]
            variables += [] if nested else layer.variables
        # A layer sets all its variables, of which some may have been frozen before.
        before = [(item, item.trainable) for item in [*frozen, *variables]]
        for item in frozen:
            item.trainable = False
        try:
            yield
        finally:
            for item, trainable in before:
                item.trainable = trainable

    def _other_layers(self, distiller: Distiller, x) -> list[keras.Layer]:
        *begin, end = (self._up_to(distiller, x, tap) for tap in self.trains)
        part = end - begin[0] if begin else end
        layers = flatten_layers(distiller.student)
        return [layer for layer in layers if id(layer) not in part]

    def _up_to(self, distiller: Distiller, x, tap: Tap) -> set:
        inputs = tracing.input_of(distiller.student)
        if inputs is None:
            inputs = tracing.trace(distiller.entry.student_alone, x)
        return {id(y) for y in taps.layers_up_to(distiller.student, inputs, tap)}


class ParaphraserStage:
    """Training of a paraphraser on a layer of the teacher, for a later factor transfer.

    Args:
        paraphraser: paraphraser of a `kd.losses.FactorTransfer` in a later stage.
        tap: layer of the teacher.
        optimizer, epochs, callbacks, name: as in `kd.Stage`.

    Raises:
        ValueError: there are no epochs, the layer does not exist, or the teacher has a
            preprocessor of its own.

    Example:
        >>> paraphraser = kd.adapters.Paraphraser()
        >>> factors = kd.losses.FactorTransfer(paraphraser)
        >>> kd.fit_stages(distiller, [
        ...     kd.ParaphraserStage(paraphraser, "stack3", epochs=2),
        ...     kd.Stage([kd.Term(factors, "stack3", "stack3")], epochs=2),
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
        check_integers(1, epochs=epochs)
        self.epochs = epochs
        self.callbacks = list(callbacks)
        self.name = name

    def trainer(self, distiller: Distiller, data: StageData) -> keras.Model:
        """Return the model on which `fit` is called."""
        teacher, tap, taught = distiller.teacher, self.tap, distiller.entry.taught
        if not self.paraphraser.built:
            inputs = tracing.trace(taught, data.inputs)
            tap_shapes = teacher.shapes(inputs, [tap])
            self.paraphraser.build(tuple(tap_shapes[str(tap)]))
        return self.paraphraser.trainer(lambda x: teacher(taught(x), [tap])[tap])

    def check(self, distiller: Distiller, prepared: Sequence) -> list:
        """Return the paraphraser, which this stage prepares for later ones."""
        _check_takes_tensors(distiller.teacher, self.tap)
        return [self.paraphraser]

    def fit(self, trainer, distiller: Distiller, data: StageData, callbacks):
        """Train, and return the `keras.callbacks.History`."""
        with data.scope():
            trainer.compile(copied(keras.optimizers.get(self.optimizer)))
        return data.fit(trainer, self.epochs, [*self.callbacks, *callbacks], False)

    def finish(self) -> None:
        """Freeze the paraphraser."""
        self.paraphraser.trainable = False


def _check_takes_tensors(teacher, tap: Tap) -> None:
    """Check that the data of a stage are what a teacher takes, without preprocessing."""
    for model in teacher.models:
        if preprocessing_of(model) is not None:
            raise ValueError(
                f"A kd.ParaphraserStage runs the teacher on the data as they are, and "
                f"'{model.name}' has a preprocessor of its own. Train the paraphraser "
                f"before: paraphraser.train_on(teacher, '{tap}', x), where x is what "
                "teacher.preprocessor returns for the data, and leave the stage out."
            )


def with_fresh_optimizer(compiled: Mapping, labeled: bool = True) -> dict:
    """Return the arguments of `compile` with a copy of the optimizer, without state.

    The optimizer defaults to Adam. Loss and metrics are left out if not `labeled`.
    """
    optimizer = keras.optimizers.get(compiled.get("optimizer", "adam"))
    need_labels = ("loss", "loss_weights", "metrics", "weighted_metrics")
    without = {} if labeled else dict.fromkeys(need_labels)
    return {**compiled, **without, "optimizer": copied(optimizer)}


def may_be_positive(weight) -> bool:
    """Return True if a weight, or the value of its schedule, can be above 0."""
    if weight == BALANCED or isinstance(weight, LearningRateSchedule):
        return True
    return float(weight) > 0
