"""What protocols share: a training by Adam, a stored network, an accuracy."""

import pathlib
from collections.abc import Callable

import keras

import keras_distill as kd


def cross_entropy() -> keras.losses.Loss:
    """Return the loss of integer labels and logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fit(model, samples, batch: int, epochs: int, seed: int, **settings) -> None:
    """Train by Adam, with a rate that falls to 0 by a cosine.

    Args:
        model: student alone, or a distiller.
        samples: to learn.
        batch: number of samples of a step.
        epochs: number of them.
        seed: of the order.
        settings: `rate`, by default 1e-3, and arguments of `kd.data.batches`.
    """
    rate = settings.pop("rate", 1e-3)
    batches = kd.data.batches(samples, batch, shuffle=True, seed=seed, **settings)
    fit_on(model, batches, epochs, rate)


def fit_on(model, batches, epochs: int, rate: float = 1e-3) -> None:
    """Train by Adam on batches, with a rate that falls to 0 by a cosine."""
    steps = epochs * len(batches)
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(rate, steps)
    )
    model.compile(optimizer, cross_entropy())
    model.fit(batches, epochs=epochs, verbose=0)


def stored(file: pathlib.Path, make: Callable[[], keras.Model]) -> keras.Model:
    """Return the network of a file; it is trained and stored if the file is not there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first, so that it is whole if it is there.
        beside = file.with_name(f"part_of_{file.name}")
        make().save(beside)
        beside.replace(file)
    return keras.saving.load_model(file)


def accuracy(model, samples) -> float:
    """Return the accuracy in %."""
    return 100 - 100 * float(kd.analysis.wrong(model, samples).mean())
