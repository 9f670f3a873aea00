"""What protocols on the copy of CIFAR-10 share: images, teachers, and trainings.

All is trained as the pairs of the board: SGD whose rate falls to 0 by a cosine in each
stage, crops and mirrored images.
"""

import functools
import itertools
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
import training
from pairs import BATCH, LOSS, NETS, optimizer

import keras_distill as kd
from claims.training import adam

CELLS = pathlib.Path(training.__file__).parent / "cells"
STAGES = "stack1", "stack2", "stack3"
HOW = """SGD with a rate of 0.1 that falls to 0 by a cosine in each stage, Nesterov's
momentum of 0.9, L2 penalty of 5e-4, batches of 128, random crops and mirrored images."""


@functools.cache
def load(images: int, test: int = 10_000) -> kd.data.ImageSet:
    """Return the first images of the copy for training, and of its test split."""
    data = training.load("cifar10_jpeg")
    # Copies, so that the others are freed.
    train = data.train[np.arange(images)]
    return kd.data.ImageSet(data.name, train, data.test[np.arange(test)], data.classes)


@functools.cache
def board_teacher(name: str) -> keras.Model:
    """Return a teacher of the board, trained on all 50,000 images."""
    return training.trained(NETS[name], CELLS)


def batches(samples, seed: int, **settings):
    """Return batches of views, in an order of the seed."""
    views = kd.data.Views(training.augment, training.VIEWS)
    return kd.data.batches(
        samples,
        BATCH,
        shuffle=True,
        seed=seed,
        augment=views,
        drop_remainder=True,
        **settings,
    )


def fit(student, samples, epochs: int, seed: int, by=None) -> keras.Model:
    """Return a student after a training on labels alone; `by` is another optimizer."""
    student.compile(by or optimizer(epochs, len(samples)), LOSS)
    student.fit(batches(samples, seed), epochs=epochs, verbose=0)
    return student


def distill(
    student, teacher, terms, samples, epochs: int, seed: int, label_weight=1.0, by=None
) -> keras.Model:
    """Return a student after a training on labels and terms.

    Args:
        student: to train.
        teacher: one that is read from a cache joins the batches.
        terms: what to learn from it.
        samples, epochs, seed, label_weight: of the training.
        by: another optimizer.
    """
    cached = isinstance(teacher, kd.CachedTeacher)
    distiller = kd.Distiller(
        student,
        teacher,
        terms=terms,
        label_weight=label_weight,
        student_inputs="image" if cached else None,
    )
    train = batches(samples, seed, sample_ids=cached)
    distiller.compile(by or optimizer(epochs, len(samples)), LOSS)
    joined = teacher.join(train) if cached else train
    distiller.fit(joined, epochs=epochs, verbose=0)
    return student


def distill_first(
    student, teacher, terms, samples, epochs: Sequence[int], seed: int, then=()
) -> keras.Model:
    """Return a student after a stage of terms without labels, and one of labels.

    The first stage trains the layers up to the last tap, by Adam, which does not depend
    on the weight of the terms; its rate of 1e-3 falls to 0 by a cosine.

    Args:
        student, teacher: of the training.
        terms: of the first stage.
        samples, seed: of both stages.
        epochs: of the first stage and of the second.
        then: terms beside the labels in the second stage. Default: none.
    """
    first, second = epochs
    *_, last = [tap.path for term in terms for tap in term.student]
    by = adam(first * (len(samples) // BATCH))
    stages = [
        kd.Stage(terms, trains=last, label_weight=0.0, optimizer=by, epochs=first),
        kd.Stage(then, optimizer=optimizer(second, len(samples)), epochs=second),
    ]
    distiller = kd.Distiller(student, teacher)
    distiller.compile("adam", LOSS)
    kd.fit_stages(distiller, stages, batches(samples, seed), verbose=0)
    return student


def on_stages(loss, weights=None, side: str = "output") -> list[kd.Term]:
    """Return a term for each stage, with the weight recommended or one for each."""
    taps = [kd.Tap(stage, side=side) for stage in STAGES]
    weights = weights or [None] * len(taps)
    return [
        kd.Term(loss, tap, tap, weight, name=f"{loss.name}_{tap.path}")
        for tap, weight in zip(taps, weights, strict=True)
    ]


def flows() -> list[kd.Term]:
    """Return FSP's terms, between the ends of stages that follow each other."""
    ends = ("stem_relu", *STAGES)
    pairs = itertools.pairwise(ends)
    loss = kd.losses.FlowMatrix()
    return [kd.Term(loss, pair, pair, name=f"fsp_{pair[1]}") for pair in pairs]
