"""What protocols share: a training by Adam, a stored network, an accuracy."""

import pathlib
from collections.abc import Callable

import keras
from keras import ops

import keras_distill as kd


def cross_entropy() -> keras.losses.Loss:
    """Return the loss of integer labels and logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def adam(steps: int, rate: float = 1e-3) -> keras.optimizers.Optimizer:
    """Return Adam, whose rate falls to 0 by a cosine."""
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))


def cross_entropy_of_labelled(labels, logits):
    """Return the cross-entropy of each sample, whose mean is that of the labelled ones.

    It is 0 without a label, which is -1. With `ignore_class=-1`, the loss would leave
    these samples out of the distillation losses too.
    """
    labels = ops.reshape(labels, (-1,))
    known = ops.cast(labels >= 0, logits.dtype)
    share = ops.maximum(ops.sum(known), 1.0) / ops.cast(ops.size(known), logits.dtype)
    classes = ops.maximum(labels, 0)
    losses = keras.losses.sparse_categorical_crossentropy(
        classes, logits, from_logits=True
    )
    return known * losses / share


def fit(model, samples, batch: int, epochs: int, seed: int, **settings) -> None:
    """Train by Adam.

    Args:
        model: student alone, or a distiller.
        samples: to learn.
        batch: number of samples of a step.
        epochs: number of them.
        seed: of the order.
        settings: `rate`, by default 1e-3; `decays`, whether it falls to 0 by a cosine, by
            default True; and arguments of `kd.data.batches`.
    """
    rate, decays = settings.pop("rate", 1e-3), settings.pop("decays", True)
    batches = kd.data.batches(samples, batch, shuffle=True, seed=seed, **settings)
    fit_on(model, batches, epochs, rate, decays)


def fit_on(model, batches, epochs: int, rate: float = 1e-3, decays=True) -> None:
    """Train by Adam on batches, with a rate that may fall to 0 by a cosine."""
    steps = epochs * len(batches)
    optimizer = adam(steps, rate) if decays else keras.optimizers.Adam(rate)
    model.compile(optimizer, cross_entropy())
    model.fit(batches, epochs=epochs, verbose=0)


def fit_to_logits(
    student, samples, logits, loss, batch: int, epochs: int, seed: int, **settings
) -> None:
    """Train by Adam on logits of a teacher that are computed already.

    Args:
        student: to train.
        samples: images and labels; a label of -1 is none.
        logits: of the teacher, `(N, K)`.
        loss: distillation loss.
        batch, epochs, seed: as in `fit`.
        settings: `weight` and `label_weight`, by default 1 and 0; and `rate`, which falls
            to 0 by a cosine, by default 1e-3.
    """
    distiller = kd.Distiller(
        student,
        kd.GivenTeacher(logits="logits"),
        terms=[kd.Term(loss, weight=settings.pop("weight", 1.0))],
        label_weight=settings.pop("label_weight", 0.0),
        student_inputs="image",
    )
    steps = epochs * -(-len(samples) // batch)
    optimizer = adam(steps, settings.pop("rate", 1e-3))
    keras.utils.set_random_seed(seed)
    distiller.compile(optimizer, cross_entropy_of_labelled)
    inputs = {"image": samples.images, "logits": logits}
    distiller.fit(inputs, samples.labels, batch, epochs, verbose=0, **settings)


def logits_of(model, samples):
    """Return a model's logits, `(N, K)`."""
    return model.predict(samples.images, 1000, verbose=0)


def stored(
    file: pathlib.Path,
    make: Callable,
    save: Callable = keras.saving.save_model,
    load: Callable = keras.saving.load_model,
):
    """Return what a file holds; it is made and stored if the file is not there.

    Args:
        file: of the network, or of what `save` and `load` take.
        make: function that returns it.
        save, load: functions of it and a file, and of a file. Default: of a network.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first, so that it is whole if it is there.
        beside = file.with_name(f"part_of_{file.name}")
        save(make(), beside)
        beside.replace(file)
    return load(file)


def accuracy(model, samples) -> float:
    """Return the accuracy in %."""
    return 100 - 100 * float(kd.analysis.wrong(model, samples).mean())
