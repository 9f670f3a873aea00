"""Generations: each student is the next one's teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import taps
from keras_distill.distillers import term_checks as checks
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.term import Term
from keras_distill.losses import SoftTarget
from keras_distill.schemes.progress import Ledger, Progress
from keras_distill.schemes.stages import at_least_one, may_count, with_fresh_optimizer
from keras_distill.taps import heads, tracing
from keras_distill.teachers.teacher import Teacher


class Generation(NamedTuple):
    """One model of a chain.

    Args:
        model: trained, a plain Keras model.
        history: of its training, lists by name.

    Example:
        >>> chain[-1].model.save("last.keras")
    """

    model: keras.Model
    history: dict


def fit_generations(
    make: Callable[[int], keras.Model],
    generations: int,
    x,
    y=None,
    *,
    compiled: Mapping[str, object],
    terms: Sequence[Term] | None = None,
    label_weight: float | LearningRateSchedule = 1.0,
    teacher: keras.Model | Teacher | None = None,
    epochs: int = 1,
    seed: int = 0,
    backup: str | None = None,
    verbose: int | str = "auto",
    **arguments,
) -> list[Generation]:
    """Train a chain of models, each of which learns from the one before.

    With nets of one size these are born-again networks; with smaller and smaller ones
    the models between are teacher assistants. Generation g is made and trained after
    `keras.utils.set_random_seed(seed + g)`, and so has fresh weights. All nets are made
    and checked before the first is trained. Interrupted and called again with the same
    `backup`, it goes on where it was.

    - BAN: `terms=[kd.Term(kd.losses.SoftTarget(1.0))]`, `label_weight=0`; BAN+L with
      labels.
    - CWTM: `kd.losses.ConfidenceWeightedLabel()`, `label_weight=0`.
    - DKPP: `kd.losses.SoftTarget(1.0, target=kd.targets.Permuted())`, `label_weight=0`.

    Args:
        make: from a generation's number to a new, built model.
        generations: how many models are made, 1 or more.
        x, y: as in `fit`; no generator.
        compiled: arguments of `compile`: `optimizer`, `loss`, `metrics`; each
            generation takes a fresh copy of the optimiser.
        terms: what each learns from the one before. Default: soft targets at
            temperature 1.
        label_weight: of the loss, from the second model on. Default 1; with 0 their
            loss and metrics are left out, but where data are given to validate on.
        teacher: of the first model. Default: none, the first learns from labels alone.
        epochs: of each. Default 1.
        seed: of the first. Default 0.
        backup: a folder that keeps what is done. Default: none.
        verbose: 0 for nothing, 1 or `"auto"` for one bar over all epochs, 2 for a line
            an epoch.
        **arguments: of `fit`.

    Returns:
        A list of `(model, history)`, oldest first; `kd.Ensemble([g.model for g in ...])`
        predicts by all of them.

    Raises:
        ValueError: no generations or epochs, a generator, models that are not built, or
            what `Distiller` raises; all before the first step.

    Example:
        >>> chain = kd.fit_generations(make, 3, train, epochs=20, compiled={
        ...     "optimizer": "adam",
        ...     "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
        >>> ensemble = kd.Ensemble([generation.model for generation in chain])

    Source:
        Furlanello et al. 2018, Born-again neural networks; Mirzadeh et al. 2020,
        Improved knowledge distillation via teacher assistant.
    """
    at_least_one(epochs)
    if generations < 1:
        raise ValueError(f"generations is 1 or more; got {generations}.")
    checks.can_be_read_again(x)
    x, batch = checks.first_batch(x, y)
    terms = [Term(SoftTarget(1.0))] if terms is None else terms
    models = [_made(make, place, seed) for place in range(generations)]
    trainers, before = [], teacher
    for model in models:
        trainers.append(_trainer(model, before, terms, label_weight))
        labelled = before is None or may_count(label_weight)
        if batch is not None and labelled:
            _can_take(model, batch, compiled.get("loss"))
        before = model
    validates = any(name.startswith("validation") for name in arguments)
    ledger = Ledger(backup, {"generations": generations, "epochs": epochs})
    progress = Progress(generations * epochs, verbose)
    histories = []
    for place, trainer in enumerate(trainers):
        progress.begin(f"Generation {place + 1} of {generations}", epochs)
        keras.utils.set_random_seed(seed + place)

        def train(own, trainer=trainer):
            labelled = not isinstance(trainer, Distiller) or may_count(label_weight)
            # Of a weight of 0 the loss still tells how the student does.
            labelled = labelled or validates
            trainer.compile(**with_fresh_optimizer(compiled, labelled))
            callbacks = [progress, *(arguments.get("callbacks") or []), *own]
            given = {**arguments, "callbacks": callbacks, "verbose": 0}
            return trainer.fit(x, y, epochs=epochs, **given)

        histories.append(ledger.once(place, trainer, train))
        progress.finish()
    return [Generation(*pair) for pair in zip(models, histories, strict=True)]


def _made(make, place: int, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed + place)
    model = make(place)
    checks.is_student(model)
    return model


def _can_take(model: keras.Model, batch, loss) -> None:
    """Check labels and loss against a model of known inputs."""
    inputs = tracing.input_of(model)
    if inputs is None:
        return
    outputs, last_layer = taps.outline(model, inputs)
    classes = getattr(outputs, "shape", (None,))[-1]
    labels = keras.utils.unpack_x_y_sample_weight(batch)[1]
    checks.labels_fit(labels, classes, loss)
    if not heads.ends_in_probabilities(last_layer):
        checks.takes_logits(loss)


def _trainer(model, teacher, terms, label_weight) -> keras.Model:
    """Give what is fitted: the model alone, or with a teacher."""
    if teacher is None:
        return model
    own = [term.copy() for term in terms]
    return Distiller(model, teacher, terms=own, label_weight=label_weight)
