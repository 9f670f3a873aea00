"""Generations: a chain of models in which each teaches the next."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import taps
from keras_distill._backend.number_checks import check_integers
from keras_distill.distillers import term_checks
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.task_term import TaskTerm
from keras_distill.distillers.term import Term
from keras_distill.schemes.progress import Ledger, Progress
from keras_distill.schemes.seeds import set_seed
from keras_distill.schemes.stages import may_be_positive, with_fresh_optimizer
from keras_distill.taps import heads, tracing
from keras_distill.teachers.base_teacher import BaseTeacher
from keras_distill.training import data_checks, first_batch
from keras_distill.training.plain_fit import fit_from_backup


class Generation(NamedTuple):
    """One model of a chain.

    Args:
        model: the trained model, a plain Keras model.
        history: history of its training, lists by name.

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
    teacher: keras.Model | BaseTeacher | None = None,
    epochs: int = 1,
    seed: int = 0,
    backup: str | None = None,
    verbose: int | str = "auto",
    **arguments,
) -> list[Generation]:
    """Train a chain of models, each of which learns from the previous one.

    Models of one size are born-again networks; if the sizes decrease, the intermediate
    models are teacher assistants. Generation g is created, and trained, after
    `keras.utils.set_random_seed(seed + g)`, and so has its own initial weights. All
    models are created and checked before the first is trained. After an interruption, a
    call with the same `backup` resumes.

    - BAN: `terms=[kd.Term(kd.losses.SoftTarget(1.0))]`, `label_weight=0`; BAN+L: the
      same with labels.
    - CWTM: `kd.losses.ConfidenceWeightedLabel()`, `label_weight=0`.
    - DKPP: `kd.losses.SoftTarget(1.0, target=kd.targets.Permuted())`, `label_weight=0`.

    Args:
        make: function from the index of a generation, from 0, to a new, built model.
        generations: number of models, 1 or more.
        x, y: as in `fit`; generators are not supported.
        compiled: arguments of `compile`: `optimizer`, `loss`, `metrics`; each
            generation uses a fresh copy of the optimizer.
        terms: what each model learns from the previous one. Default: its predictions at
            temperature 1, by the loss that fits the compiled one, as in `kd.Distiller`.
        label_weight: weight of the loss, from the second model on. Default 1. With 0,
            loss and metrics are used only if there are validation data.
        teacher: teacher of the first model. Default: none, it learns from labels alone.
        epochs: number of epochs for each model. Default 1.
        seed: seed of the first model. Default 0.
        backup: folder that keeps the progress. Default: none.
        verbose: 0 for silent, 1 or `"auto"` for one bar over all epochs with the time
            left, 2 for one line per epoch.
        **arguments: further arguments of `fit`.

    Returns:
        A list of `kd.Generation`, first to last; `kd.Ensemble([g.model for g in ...])`
        predicts with all of them.

    Raises:
        ValueError: before the first step: there are no generations or epochs, `x` is a
            generator, a model is not built, or as in `kd.Distiller`.

    Example:
        >>> chain = kd.fit_generations(make, 2, train, epochs=2, compiled={
        ...     "optimizer": "adam",
        ...     "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
        >>> ensemble = kd.Ensemble([generation.model for generation in chain])

    Source:
        Furlanello et al. 2018, Born-again neural networks; Mirzadeh et al. 2020,
        Improved knowledge distillation via teacher assistant.
    """
    check_integers(1, epochs=epochs, generations=generations)
    check_integers(0, seed=seed)
    term_checks.check_not_negative(label_weight, "label_weight")
    first_batch.check_rereadable(x)
    x, batch = first_batch.data_and_batch(x, y)
    terms = [TaskTerm(temperature=1.0)] if terms is None else terms
    models = [_create_model(make, i, seed) for i in range(generations)]
    labeled, trainers = may_be_positive(label_weight), []
    for model, previous in zip(models, [teacher, *models], strict=False):
        loss = compiled.get("loss")
        trainers.append(_create_trainer(model, previous, terms, label_weight, loss))
        if batch is not None and (labeled or previous is None):
            _check_labels(model, batch, compiled.get("loss"))
    _check_loss(trainers[0], compiled.get("loss"))
    validates = any(name.startswith("validation") for name in arguments)
    plan = {"generations": generations, "epochs": epochs, "seed": seed}
    ledger = Ledger(backup, plan)
    progress = Progress(generations * epochs, verbose)
    histories = []
    for i, trainer in enumerate(trainers):
        set_seed(seed + i, [*_models_of(teacher), *models])

        def train(callbacks, trainer=trainer):
            # With a weight of 0, the loss is still a measure for validation.
            with_loss = labeled or validates or not isinstance(trainer, Distiller)
            trainer.compile(**with_fresh_optimizer(compiled, with_loss))
            callbacks = [progress, *(arguments.get("callbacks") or []), *callbacks]
            settings = {**arguments, "callbacks": callbacks, "verbose": 0}
            return fit_from_backup(trainer, x, y, epochs=epochs, **settings)

        with progress.training(f"Generation {i + 1} of {generations}", epochs):
            histories.append(ledger.once(i, train))
    return [Generation(*pair) for pair in zip(models, histories, strict=True)]


def _models_of(teacher) -> list:
    if teacher is None:
        return []
    return [teacher] if isinstance(teacher, keras.Model) else list(teacher.models)


def _create_model(make, index: int, seed: int) -> keras.Model:
    set_seed(seed + index)
    model = make(index)
    term_checks.check_student(model)
    return model


def _check_loss(trainer: keras.Model, loss) -> None:
    """Check that a first generation without a teacher has a loss of the labels."""
    own = type(trainer)
    plain = own.compute_loss is keras.Model.compute_loss
    plain &= own.train_step is keras.Model.train_step
    if loss is None and plain and not trainer.losses:
        raise ValueError(
            "The first generation has no teacher, so it learns from labels; got no loss. "
            "Pass compiled={'optimizer': ..., 'loss': ...}, or teacher=."
        )


def _check_labels(model: keras.Model, batch, loss) -> None:
    """Check labels and loss against a model whose inputs are known."""
    inputs = tracing.input_of(model)
    if inputs is None:
        return
    outputs, last_layer = taps.outline(model, inputs)
    classes = getattr(outputs, "shape", (None,))[-1]
    labels = keras.utils.unpack_x_y_sample_weight(batch)[1]
    data_checks.check_labels(labels, classes, loss)
    if heads.ends_in_logits(last_layer):
        data_checks.check_logits_loss(loss)


def _create_trainer(model, teacher, terms, label_weight, loss) -> keras.Model:
    """Return the model on which `fit` is called: alone, or in a distiller."""
    if teacher is None:
        return model
    terms = [term.copy() for term in terms]
    trainer = Distiller(model, teacher, terms=terms, label_weight=label_weight)
    trainer.label_tasks = loss
    return trainer
