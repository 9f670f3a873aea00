"""Specialists: nets for classes that a generalist confuses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_distill.data import Samples
from keras_distill.schemes.progress import Progress
from keras_distill.schemes.specialists.specialist_training import (
    SpecialistTraining,
    drawn_for,
    in_processes,
)
from keras_distill.schemes.stages import at_least_one


def cluster_classes(
    predictions: np.ndarray, clusters: int, *, seed: int = 0
) -> list[list[int]]:
    """Group the classes that a generalist predicts together.

    K-means, in small batches, on the columns of the covariance of its predictions, so
    that a class's confusions decide and no label does. A class's own variance, which
    outweighs all else where the generalist is often right, is left out, and columns are
    scaled to one length.

    Args:
        predictions: probabilities `(N, K)`.
        clusters: how many groups. One that comes out empty or of one class is left out.
        seed: of the clustering. Default 0.

    Returns:
        Lists of classes, each of two or more.

    Raises:
        ValueError: as many clusters as classes, or fewer than two.

    Example:
        >>> groups = kd.cluster_classes(softmax(generalist.predict(images)), 3)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network
        (section 5.3).
    """
    from sklearn.cluster import MiniBatchKMeans

    classes = predictions.shape[-1]
    if not 2 <= clusters < classes:
        raise ValueError(
            f"clusters is 2 to {classes - 1} for {classes} classes; got {clusters}."
        )
    columns = np.cov(np.asarray(predictions, "float64"), rowvar=False)
    np.fill_diagonal(columns, 0.0)
    columns /= np.maximum(np.linalg.norm(columns, axis=0), 1e-12)
    found = MiniBatchKMeans(clusters, random_state=seed, n_init=10).fit(columns.T)
    groups = [np.flatnonzero(found.labels_ == n).tolist() for n in range(clusters)]
    return [group for group in groups if len(group) > 1]


def fit_specialists(
    generalist: keras.Model,
    groups: Sequence[Sequence[int]],
    samples: Samples,
    *,
    compiled: Mapping[str, object],
    soft_weight: float = 0.5,
    temperature: float = 1.0,
    epochs: int = 1,
    batch_size: int = 128,
    seed: int = 0,
    processes: int = 1,
    backup: str | None = None,
    verbose: int | str = "auto",
) -> list[keras.Model]:
    """Train a specialist for each group of classes.

    A specialist starts as the generalist, with a last layer for its classes and one
    dustbin for all others, and sees as many samples of its classes as of others. It
    learns from labels and from the generalist's soft targets, in which the others are
    one class too. Afterwards the dustbin's bias takes back that it was seen too seldom:

        b <- b + log(share among all samples / share among those seen) (as odds)

    Args:
        generalist: functional, its last layer a `Dense` without activation.
        groups: classes of each specialist, as `kd.cluster_classes` gives them.
        samples: of all classes.
        compiled: arguments of `compile`: `optimizer`, `loss`, `metrics`.
        soft_weight: of the generalist's soft targets; labels have the rest. Default 0.5.
        temperature: T of the soft targets. Default 1.
        epochs: of each. Default 1.
        batch_size: Default 128.
        seed: of the samples drawn and of their order. Default 0.
        processes: how many are trained at once, each in a new process, which imports
            the script: begin it with `if __name__ == "__main__":`. Default 1: in turn,
            in this process.
        backup: a folder that keeps what is done. Default: none.
        verbose: 0 for nothing, 1 or `"auto"` for one bar over all epochs, 2 for a line
            an epoch.

    Returns:
        A model for each group, with logits of its classes, in their order, and of the
        dustbin.

    Raises:
        TypeError, ValueError: a generalist without such a last layer, a group that is
            empty, holds all classes or one twice, or a class without samples.

    Example:
        >>> specialists = kd.fit_specialists(generalist, groups, samples, epochs=5,
        ...     compiled={"optimizer": "adam", "loss": loss})
        >>> model = kd.SpecialistEnsemble(generalist, specialists, groups)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network
        (section 5).
    """
    at_least_one(epochs)
    at_least_one(processes, "processes")
    groups = [[int(k) for k in group] for group in groups]
    are_groups(generalist, groups)
    settings = {
        "soft_weight": soft_weight,
        "temperature": temperature,
        "epochs": epochs,
        "batch_size": batch_size,
    }
    trainings = [
        SpecialistTraining(
            generalist,
            group,
            drawn_for(samples, group, seed + place),
            len(samples),
            seed + place,
            settings,
        )
        for place, group in enumerate(groups)
    ]
    progress = Progress(len(groups) * epochs, verbose)
    folders = [backup and os.path.join(backup, str(n)) for n in range(len(groups))]
    if processes > 1:
        return in_processes(processes, trainings, compiled, folders, progress)
    for training, folder in zip(trainings, folders, strict=True):
        training.run(compiled, folder, progress)
    return [training.model for training in trainings]


def are_groups(generalist: keras.Model, groups: Sequence[Sequence[int]]) -> None:
    """Check groups of classes."""
    classes = generalist.output_shape[-1]
    for group in groups:
        known = set(group) <= set(range(classes)) and len(set(group)) == len(group)
        if not known or not 0 < len(group) < classes:
            raise ValueError(
                f"A group is some of the classes 0..{classes - 1}, each once, and not "
                f"all; got {list(group)}."
            )
    if not groups:
        raise ValueError("There are no groups of classes; give one or more.")
